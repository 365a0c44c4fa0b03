"""Which sizes, multiplied, are the MACs of an operation, and which operations have MACs that nobody can count."""

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor, fx

from whyprune.structure.capture import Graph
from whyprune.structure.operations import (
    CONVOLUTIONS,
    TRANSPOSED,
    bind,
    einsum_letters,
    is_pointwise,
    name_of,
    sizes,
    tensors,
    where,
)
from whyprune.structure.rules import known_operations

Terms = list[tuple[fx.Node, list[int]]]
_PRODUCTS = (
    *("matmul", "bmm", "mm", "mv", "dot", "vdot", "inner", "addmm", "addmv", "baddbmm", "__matmul__"),
    *("linalg_matmul", "linalg_vecdot"),
)
_LEFT = ("mat1", "batch1", "mat", "self", "x")
RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_CELLS = ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
_WITHOUT_PRODUCTS = (
    *("scatter", "gather", "index", "where", "sort", "topk", "cum", "copy", "fill", "masked", "as_strided", "flip"),
    *(
        "one_hot",
        "nonzero",
        "unique",
        "view_as",
        "fftshift",
        "embedding",
        "assert",
        "bucketize",
        "searchsorted",
        "like",
        "_to_copy",
    ),
)
"""Parts of the names of operations that move, compare or add values."""
_TRANSFORMS = ("fft_", "stft", "istft", "linalg_")


def terms_of(node: fx.Node) -> list[Terms]:
    """Per matrix product, the tensors and their dimensions whose sizes, multiplied, are its MACs."""
    name, bound = name_of(node), bind(node)
    if name in CONVOLUTIONS:
        return [[(node, _all(node)), (bound["weight"], _all(bound["weight"])[1:])]]
    if name in TRANSPOSED:
        return [[(bound["input"], _all(bound["input"])), (bound["weight"], _all(bound["weight"])[1:])]]
    if name == "linear":
        return [[(node, _all(node)), (bound["weight"], [len(sizes(bound["weight"])) - 1])]]
    if name in _PRODUCTS:
        left = next(bound[n] for n in _LEFT if isinstance(bound.get(n), fx.Node))
        return [[(node, _all(node)), (left, _all(left)[-1:])]]
    if name == "scaled_dot_product_attention":
        query, key = bound["query"], bound["key"]
        return [[(query, _all(query)), (key, _all(key)[-2:-1])], [(node, _all(node)), (key, _all(key)[-2:-1])]]
    if name == "einsum":
        return _einsum(einsum_letters(bound["equation"], bound["tensors"]), bound["equation"], bound["tensors"])
    return _less_common(name, bound)


def _less_common(name: str, bound: dict[str, Any]) -> list[Terms]:
    if name in RECURRENT:
        data = bound["input"] if "input" in bound else bound["data"]  # packed sequences: one row per step that there is
        return [_at_every_step(data, weight) for weight in bound["params"] if len(sizes(weight)) == 2]
    if name in _CELLS:
        return [_at_every_step(bound["input"], bound[weight]) for weight in ("w_ih", "w_hh")]
    if name == "bilinear":  # the first input by the weight, then the second by what that gives
        data, weight = bound["input1"], bound["weight"]
        places = (data, _all(data)[:-1])
        return [[places, (weight, [0, 1, 2])], [places, (weight, [0, 2])]]
    if name == "embedding_bag":  # a product with a matrix that has a one for every word
        return [[(bound["indices"], _all(bound["indices"])), (bound["weight"], [1])]]
    if name == "tensordot":
        left, right = bound["self"], bound["other"]
        summed = [d % len(sizes(right)) for d in bound["dims_other"]]
        return [[(left, _all(left)), (right, [d for d in _all(right) if d not in summed])]]
    if name == "addbmm":
        return [[(bound["batch1"], _all(bound["batch1"])), (bound["batch2"], [2])]]
    if name.startswith("_scaled_dot_product"):  # the kernels that attention may be captured as
        query, key, value = bound["query"], bound["key"], bound["value"]
        steps = (key, _all(key)[-2:-1])
        return [[(query, _all(query)), steps], [(query, _all(query)[:-1]), (value, _all(value)[-1:]), steps]]
    return []


def _at_every_step(data: fx.Node, weight: fx.Node) -> Terms:
    """A matrix by which every step's features, or those of its hidden state, are multiplied."""
    return [(data, _all(data)[:-1]), (weight, [0, 1])]


def _einsum(letters: Sequence[tuple[str, ...]], equation: str, operands: Sequence[fx.Node]) -> list[Terms]:
    """Operands are multiplied from left to right; letters that nobody needs any more are summed away at once."""
    place = {x: (tensor, dim) for own, tensor in zip(letters, operands, strict=True) for dim, x in enumerate(own)}
    _, arrow, right = equation.replace(" ", "").partition("->")
    found, held = [], set(letters[0])
    for number, own in enumerate(letters[1:], start=1):
        later = {x for rest in letters[number + 1 :] for x in rest}
        factors = held | set(own)
        found.append([(place[x][0], [place[x][1]]) for x in sorted(factors)])
        held = {x for x in factors if x in later or not arrow or x in right or x.startswith(".")}
    return found


def uncounted(graph: Graph) -> tuple[str, ...]:
    """Operations that may multiply the network's values in a way that `terms_of` does not know, and where they are.

    Whatever has a rule, or treats every value by itself, is known: it has the MACs that `terms_of` says. Any other is
    named where a parameter reaches it, directly or through other operations, or where its name says that it transforms.
    """
    known, state = frozenset(known_operations()), _state_only(graph)
    found = (n for n in graph.operations if n not in state and not _is_known(n, known) and _may_multiply(n, state))
    return tuple(dict.fromkeys(f"{name_of(n)} in {where(n)}" for n in found))


def stepped(graph: Graph) -> tuple[str, ...]:
    """Operations whose MACs are those of one step times the number of steps, and where they are."""
    return tuple(dict.fromkeys(f"{name_of(n)} in {where(n)}" for n in graph.operations if name_of(n) in RECURRENT))


def _state_only(graph: Graph) -> frozenset[fx.Node]:
    """Parameters, buffers, and what is computed from them alone: once, not for every sample."""
    inputs = {n for n in graph.nodes if n.op == "placeholder" and n.name in graph.inputs}
    moving = set(inputs)
    for node in graph.operations:
        if not moving.isdisjoint(node.all_input_nodes):
            moving.add(node)
    return frozenset(n for n in graph.nodes if n not in moving and (n.op == "placeholder" or n.all_input_nodes))


def _is_known(node: fx.Node, known: Collection[str]) -> bool:
    name = name_of(node)
    if name in known or is_pointwise(node) or not tensors(node.meta.get("val")) or name == "getitem":
        return True
    return (any(part in name for part in _WITHOUT_PRODUCTS) and name != "embedding_bag") or bool(terms_of(node))


def _may_multiply(node: fx.Node, state: Collection[fx.Node]) -> bool:
    """Whether a parameter or buffer of numbers reaches an operation, or it is a transform by its name."""
    values = [n.meta.get("val") for n in node.all_input_nodes if n in state]
    weights = any(isinstance(v, Tensor) and v.dim() and (v.is_floating_point() or v.is_complex()) for v in values)
    return weights or name_of(node).lstrip("_").startswith(_TRANSFORMS)


def _all(node: fx.Node) -> list[int]:
    return list(range(len(sizes(node))))
