"""Operations that return a tensor with a part of it written over: what in-place writes to parts become."""

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from whyprune.structure.labels import support
from whyprune.structure.operations import sizes, where
from whyprune.structure.rules.base import Arguments, Context, Value, compact, rule
from whyprune.structure.rules.cutting import CONSTANT, bounds_of, reach
from whyprune.structure.rules.elementwise import aligned, meet, pointwise

STRANGERS = "values that are no known channels are written over them"


@rule("slice_scatter")
def slice_scatter(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """What is written meets what is written over, index by index; the bounds count channels as those of a slice."""
    target, source = args["self"], args["src"]
    dim, size = args["dim"] % len(sizes(target)), sizes(target)[args["dim"]]
    bounds = bounds_of(args, size)
    if bounds == (0, size, 1):
        return meet(ctx, node, (ctx.labellings(target), sizes(target)), (ctx.labellings(source), sizes(source)))
    over, written = ctx.over(target, {dim}), ctx.single(ctx.over(source, {dim}), node)
    for labelling in over:
        reach(ctx, node, labelling, dim, bounds)
        part = labelling.movedim(dim, 0)[slice(*bounds)].movedim(0, dim)
        if written is None:
            ctx.space.pin(part, where(node), STRANGERS)
        else:
            ctx.meet(part, written, node)
    if written is not None and not over:
        ctx.space.pin(written, where(node), "they are written beside values that are no known channels")
    return (*_beside(ctx, node, target, source, dim), *over)


def _beside(ctx: Context, node: fx.Node, target: fx.Node, source: fx.Node, dim: int) -> tuple[Tensor, ...]:
    """Labellings over other dimensions than `dim`, where what is written and what is kept have to go together."""
    shapes = [tuple(1 if d == dim else s for d, s in enumerate(sizes(n))) for n in (target, source)]
    return meet(ctx, node, (ctx.besides(target, {dim}), shapes[0]), (ctx.besides(source, {dim}), shapes[1]))


@rule("select_scatter")
def select_scatter(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """One index of a dimension is written over: the dimension keeps its size, all others meet."""
    target, source = args["self"], args["src"]
    dim = args["dim"] % len(sizes(target))
    ctx.rigid(target, (dim,), node, CONSTANT)
    for labelling in ctx.over(target, {dim}):
        if support(labelling) != {dim}:
            ctx.space.pin(labelling, where(node), STRANGERS)
    written = tuple(labelling.unsqueeze(dim) for labelling in ctx.labellings(source))
    own = sizes(source)
    shapes = tuple(1 if d == dim else s for d, s in enumerate(sizes(target))), (*own[:dim], 1, *own[dim:])
    beside = meet(ctx, node, (ctx.besides(target, {dim}), shapes[0]), (written, shapes[1]))
    return (*beside, *ctx.over(target, {dim}))


@rule("index_fill")
def index_fill(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Some indices of a dimension get one value: the dimension keeps its size, channels along others pass."""
    ctx.rigid(args["self"], (args["dim"],), node, CONSTANT)
    for other in (n for n in node.all_input_nodes if n is not args["self"]):
        ctx.pin(other, node, "they are used as indices")
    return ctx.labellings(args["self"])


@rule("index_put")
def index_put(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Values are written to indices or under a mask: the dimensions that they reach into keep their size."""
    target, values = args["self"], args["values"]
    found = _reached(args["indices"], single=sizes(values).count(1) == len(sizes(values)))
    if found is None:
        return None
    first, covered, rank = found
    if covered == len(sizes(target)) and rank == 0:
        return pointwise(ctx, node, args)
    inside = frozenset(range(first, first + covered))
    ctx.rigid(target, inside, node, CONSTANT)
    for labelling in ctx.over(target, inside):
        if not support(labelling) <= inside:
            ctx.space.pin(labelling, where(node), STRANGERS)
    for index in (i for i in args["indices"] if i is not None):
        ctx.pin(index, node, "they are used as indices")

    def written(shape: Sequence[int]) -> tuple[int, ...]:
        return (*shape[:first], *(1,) * rank, *shape[first + covered :])

    full = written(sizes(target))
    kept = tuple(labelling.reshape(written(labelling.shape)) for labelling in ctx.besides(target, inside))
    incoming, own = aligned(ctx, values, len(full))
    among = frozenset(range(first, first + rank))
    for labelling in incoming:
        if support(labelling) & among:
            ctx.space.pin(labelling, where(node), CONSTANT)
    outer = tuple(1 if d in among else s for d, s in enumerate(own))
    meet(ctx, node, (kept, full), (tuple(x for x in incoming if not support(x) & among), outer))
    return compact(ctx.labellings(target))


def _reached(indices: Sequence[fx.Node | None], *, single: bool) -> tuple[int, int, int] | None:
    """First dimension that indices reach into, how many, and the rank of what takes their place; None if scattered.

    A mask that gives a single value its places takes no dimension.
    """
    places = [d for d, i in enumerate(indices) if i is not None]
    if places != list(range(places[0], places[-1] + 1)):
        return None
    held = [i.meta["val"] for i in indices if i is not None]
    masks = [v for v in held if v.dtype in (torch.bool, torch.uint8)]
    if masks:
        return (places[0], masks[0].dim(), int(not single)) if len(held) == 1 else None
    return places[0], len(held), max(v.dim() for v in held)
