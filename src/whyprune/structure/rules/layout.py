"""Operations that move, join, cut or pad indices."""

from typing import Any

import numpy as np
from torch import fx

from whyprune.structure.labels import Axes, Labels
from whyprune.structure.rules.base import Arguments, Context, Value, WidthSite, rule, shape_of, unknown, where


@rule("permute")
def permute(ctx: Context, _node: fx.Node, args: Arguments) -> Value:
    """Dimensions change places."""
    data = ctx.axes(args["self"])
    return None if data is None else tuple(data[d] for d in args["dims"])


@rule("transpose", "swapaxes")
def transpose(ctx: Context, _node: fx.Node, args: Arguments) -> Value:
    """Two dimensions change places."""
    data = ctx.axes(args["self"])
    if data is None:
        return None
    out = list(data)
    first, second = (args[k] for k in ("dim0", "dim1")) if "dim0" in args else (args["axis0"], args["axis1"])
    out[first], out[second] = out[second], out[first]
    return tuple(out)


@rule("unsqueeze")
def unsqueeze(ctx: Context, _node: fx.Node, args: Arguments) -> Value:
    """A new dimension of size 1."""
    data = ctx.axes(args["self"])
    if data is None:
        return None
    place = args["dim"] % (len(data) + 1)
    return (*data[:place], None, *data[place:])


@rule("squeeze")
def squeeze(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Dimensions of size 1 disappear; a lone channel among them is kept."""
    data = ctx.axes(args["self"])
    if data is None:
        return None
    dims = args.get("dim")
    listed = [dims] if isinstance(dims, int) else list(range(len(data)) if dims is None else dims)
    sizes = shape_of(args["self"])
    gone = {d % len(data) for d in listed if isinstance(sizes[d], int) and sizes[d] == 1}
    for dim in gone:
        ctx.space.pin(data[dim], where(node), "a single channel is squeezed away")
    return tuple(labels for dim, labels in enumerate(data) if dim not in gone)


@rule("cat")
def cat(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Labels are joined along the dimension; elsewhere they meet index by index."""
    parts = [ctx.axes(t) for t in args["tensors"]]
    known = [p for p in parts if p is not None]
    if len(known) != len(parts):
        return unknown(ctx, node, "a concatenation with a tensor of unknown channels")
    rank = len(known[0])
    dim = args["dim"] % rank
    out: list[Labels | None] = []
    for d in range(rank):
        columns = [p[d] for p in known]
        if all(c is None for c in columns):
            out.append(None)
        elif d == dim:
            out.append(_joined(ctx, node, args["tensors"], columns, d))
        else:
            merged = columns[0]
            for other in columns[1:]:
                merged = ctx.join(merged, other, node)
            out.append(merged)
    return tuple(out)


def _joined(ctx: Context, node: fx.Node, tensors: Any, columns: list[Labels | None], dim: int) -> Labels:
    pieces = []
    for tensor, labels in zip(tensors, columns, strict=True):
        piece = ctx.space.fresh(int(shape_of(tensor)[dim])) if labels is None else labels
        if labels is None:
            ctx.space.pin(piece, where(node), "concatenated values that are no known channels")
        pieces.append(piece)
    return np.concatenate(pieces)


@rule("slice")
def slice_(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """A stretch of indices; numbers that cut channels name a width."""
    data = ctx.axes(args["self"])
    if data is None:
        return None
    dim = args["dim"] % len(data)
    labels = data[dim]
    if labels is None:
        return data
    kept = labels[slice(args["start"], args["end"], args["step"])]
    if len(kept) != len(labels) or args["step"] != 1:
        ctx.space.pin(labels, where(node), "a slice with constant bounds cuts these channels")
    return (*data[:dim], kept, *data[dim + 1 :])


@rule("pad", "constant_pad_nd")
def pad(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Padding of places passes; padding of channels with zeros makes new channels, counted by constants."""
    data = ctx.axes(args["self"])
    if data is None:
        return None
    amounts, out = list(args["pad"]), list(data)
    constant = args.get("mode", "constant") == "constant"
    for position in range(len(amounts) // 2):
        dim = len(data) - 1 - position
        before, after = amounts[2 * position], amounts[2 * position + 1]
        labels = data[dim]
        if labels is None or (before, after) == (0, 0):
            continue
        if not constant or before < 0 or after < 0 or args.get("value") not in (None, 0, 0.0):
            ctx.space.pin(labels, where(node), "channels are padded with something else than zeros")
            out[dim] = None
            continue
        first, last = ctx.space.fresh(before), ctx.space.fresh(after)
        out[dim] = np.concatenate([first, labels, last])
        places = (2 * position, 2 * position + 1)
        ctx.sites.append(WidthSite(node, 1, places, (first, last), (before, after), adjustable=True))
    return tuple(out)


@rule("flatten", "view", "reshape", "_unsafe_view", "unflatten")
def reshape(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Channels survive merging with the dimensions behind them; the rest is kept whole."""
    source = args["self"] if "self" in args else args["input"]
    data = ctx.axes(source)
    if data is None or all(labels is None for labels in data):
        return (None,) * len(shape_of(node))
    out = _reshaped(data, shape_of(source), shape_of(node))
    if out is None:
        return unknown(ctx, node, "a reshape that splits or mixes channels")
    written = args.get("size", args.get("shape")) or ()
    for dim, labels in enumerate(out):
        if labels is None or dim >= len(written):
            continue
        if written[dim] != -1:
            ctx.sites.append(WidthSite(node, 1, (dim,), (labels,), (len(labels),), adjustable=False))
    return out


def _reshaped(data: Axes, old: tuple[Any, ...], new: tuple[Any, ...]) -> Axes | None:
    """Matches old and new dimensions from both ends; one run of old ones may merge into one new one."""
    front = 0
    while front < min(len(old), len(new)) and _same(old[front], new[front]):
        front += 1
    back = 0
    while back < min(len(old), len(new)) - front and _same(old[-1 - back], new[-1 - back]):
        back += 1
    middle_old, middle_new = old[front : len(old) - back], new[front : len(new) - back]
    merged = data[front : len(old) - back]
    head, tail = data[:front], data[len(old) - back :]
    if all(labels is None for labels in merged):
        return (*head, *([None] * len(middle_new)), *tail)
    wide = [i for i, size in enumerate(middle_new) if not (isinstance(size, int) and size == 1)]
    if len(wide) != 1 or any(not isinstance(s, int) for s in middle_old):
        return None
    joined = _merge(merged, middle_old)
    if joined is None:
        return None
    folded: list[Labels | None] = [None] * len(middle_new)
    folded[wide[0]] = joined
    return (*head, *folded, *tail)


def _same(old: Any, new: Any) -> bool:
    return bool(isinstance(old, int) == isinstance(new, int) and old == new)


def _merge(labels: tuple[Labels | None, ...], sizes: tuple[Any, ...]) -> Labels | None:
    """Labels of dimensions flattened into one: only one of them may hold channels."""
    holders = [i for i, own in enumerate(labels) if own is not None]
    if len(holders) != 1:
        return None
    index = holders[0]
    own = labels[index]
    assert own is not None
    outer = int(np.prod([int(s) for s in sizes[:index]], dtype=np.int64))
    inner = int(np.prod([int(s) for s in sizes[index + 1 :]], dtype=np.int64))
    return np.tile(np.repeat(own, inner), outer)
