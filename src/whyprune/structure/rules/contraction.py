"""Products of tensors that are summed over some dimensions: matmul, einsum, attention.

Dimensions that several factors share and that stay are *outer*: attention's heads. A labelling over outer and inner
dimensions at once (heads and their width) goes along the outer ones, whole heads, or, if so asked for, along the
inner ones. A labelling over a summed dimension is read here, and its two sides go together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, fx

from whyprune.structure.labels import Labellings, support, vector
from whyprune.structure.operations import einsum_letters, sizes, where
from whyprune.structure.rules.base import Arguments, Context, Value, compact, rule
from whyprune.structure.rules.elementwise import aligned, meet

Letters = tuple[str, ...]


@dataclass(frozen=True)
class Operand:
    """One factor: its letters, one per dimension."""

    node: fx.Node
    letters: Letters


@dataclass(frozen=True)
class SpreadLabelling:
    """A labelling of an operand: `spread` has one dimension per letter of the whole product."""

    operand: Operand
    labelling: Tensor
    spread: Tensor
    over: frozenset[str]


def contract(ctx: Context, node: fx.Node, operands: Sequence[Operand], out: Letters) -> Labellings:
    """The output's labellings; `out` names its dimensions, letters that it lacks are summed over."""
    every = list(dict.fromkeys([*out, *(x for o in operands for x in o.letters)]))
    outer = {x for x in out if sum(x in o.letters for o in operands) > 1}
    parts = [part for operand in operands for part in _parts(ctx, node, operand, every, outer)]
    _meet(ctx, node, operands, parts)
    kept: dict[frozenset[str], Tensor] = {}
    for part in parts:
        summed = part.over - set(out)
        if summed and not ctx.is_state(part.operand.node):
            dims = [part.operand.letters.index(x) for x in summed]
            ctx.reads(node, part.operand.node, part.labelling, dims, affine=False)
        if not summed:
            kept.setdefault(part.over, part.spread[tuple(slice(None) if x in out else 0 for x in every)])
        if not summed and len(part.over) == 1 and not part.over & outer and ctx.is_state(part.operand.node):
            ctx.writers.append((node, vector(part.spread, every.index(next(iter(part.over))))))
    return compact(kept.values())


def _parts(ctx: Context, node: fx.Node, operand: Operand, every: list[str], outer: set[str]) -> list[SpreadLabelling]:
    parts = []
    for given in ctx.labellings(operand.node):
        held = {operand.letters[d]: d for d in support(given)}
        inner = set(held) - outer
        loose: set[str] = set()
        if inner and set(held) & outer:
            loose = inner if ctx.heads == "whole" else set(held) & outer
        labelling = ctx.space.tie(given, [held[x] for x in loose], where(node))
        order = [operand.letters.index(x) for x in every if x in operand.letters]
        shape = iter(labelling.permute(order).shape)
        spread = labelling.permute(order).reshape([next(shape) if x in operand.letters else 1 for x in every])
        parts.append(
            SpreadLabelling(operand, labelling, spread, frozenset(operand.letters[d] for d in support(labelling)))
        )
    return [part for part in parts if part.over]


def _meet(ctx: Context, node: fx.Node, operands: Sequence[Operand], parts: list[SpreadLabelling]) -> None:
    """Unites what the operands share; channels that meet a dimension without labels are kept."""
    for part in parts:
        for other in operands:
            wide = {x for x in other.letters if sizes(other.node)[other.letters.index(x)] > 1}
            shared = part.over & wide if other is not part.operand else frozenset()
            partners = [p for p in parts if p.operand is other and p.over & shared]
            for partner in partners:
                ctx.meet(part.spread, partner.spread, node)
            if shared and not partners:
                ctx.space.pin(part.labelling, where(node), "they meet values that are no known channels")


@rule("matmul", "bmm", "mm", "mv", "dot", "__matmul__", "linalg_matmul")
def matmul(ctx: Context, node: fx.Node, _args: Arguments) -> Value:
    """(..., M, K) by (..., K, N); leading dimensions are broadcast; a vector is summed away."""
    left, right = (n for n in node.args[:2] if isinstance(n, fx.Node))
    return _product(ctx, node, left, right)


@rule("addmm", "baddbmm")
def addmm(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """A product plus a tensor."""
    left, right = args.get("mat1", args.get("batch1")), args.get("mat2", args.get("batch2"))
    product = _product(ctx, node, left, right)
    return meet(ctx, node, (product, sizes(node)), aligned(ctx, args["self"], len(sizes(node))))


def _product(ctx: Context, node: fx.Node, left: fx.Node, right: fx.Node) -> Labellings:
    ranks = len(sizes(left)), len(sizes(right))
    lead = [f"b{i}" for i in range(max(*ranks, 2) - 2)]
    first = (*lead[len(lead) - max(ranks[0] - 2, 0) :], *(("m", "k") if ranks[0] > 1 else ("k",)))
    second = (*lead[len(lead) - max(ranks[1] - 2, 0) :], *(("k", "n") if ranks[1] > 1 else ("k",)))
    out = (*lead, *(("m",) if ranks[0] > 1 else ()), *(("n",) if ranks[1] > 1 else ()))
    return contract(ctx, node, [Operand(left, first), Operand(right, second)], out)


@rule("einsum")
def einsum(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Letters as the equation gives them; `...` stands for the dimensions it leaves out."""
    tensors = list(args["tensors"])
    spread = einsum_letters(args["equation"], tensors)
    _, arrow, right = str(args["equation"]).replace(" ", "").partition("->")
    if any(len(set(s)) < len(s) for s in spread):
        return None  # a diagonal
    letters = [x for s in spread for x in s]
    dots = sorted({x for x in letters if x.startswith(".")}, reverse=True)
    if arrow:
        out = tuple(x for c in right.replace("...", ".") for x in (dots if c == "." else [c]))
    else:
        out = (*dots, *sorted(x for x in set(letters) - set(dots) if letters.count(x) == 1))
    return contract(ctx, node, [Operand(t, s) for t, s in zip(tensors, spread, strict=True)], out)


@rule("scaled_dot_product_attention")
def attention(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Softmax of query by key, times value: heads are outer, their width is inner."""
    query, key, value, mask = (args[name] for name in ("query", "key", "value", "attn_mask"))
    lead = [f"b{i}" for i in range(len(sizes(query)) - 2)]
    if args.get("enable_gqa") and sizes(query)[-3] != sizes(key)[-3]:
        return None
    for tensor in (query, key, value):
        ctx.rigid(tensor, (-2,), node, "attention runs over these channels")
    if args.get("scale") is None:
        for tensor in (query, key):
            ctx.rigid(tensor, (-1,), node, "attention is scaled by this width")
    operands = [Operand(query, (*lead, "l", "e")), Operand(key, (*lead, "s", "e")), Operand(value, (*lead, "s", "v"))]
    if isinstance(mask, fx.Node):
        operands.append(Operand(mask, tuple([*lead, "l", "s"][len(lead) + 2 - len(sizes(mask)) :])))
    return contract(ctx, node, operands, (*lead, "l", "v"))
