"""Operations that move values without mixing them: the operation itself runs on the labels."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from whyprune.structure.labels import NONE, Labellings, along, support
from whyprune.structure.operations import position_of, sizes, where
from whyprune.structure.rules.base import Arguments, ChannelCount, Context, Value, compact, rule
from whyprune.structure.rules.elementwise import meet

_FREE = (
    "permute transpose swapaxes swapdims t numpy_T mT matrix_H adjoint movedim moveaxis unsqueeze flip rot90 "
    "view_as reshape_as repeat_interleave"
)


def source_of(args: Arguments) -> fx.Node:
    """The tensor that an operation moves."""
    found: fx.Node = args["self"] if "self" in args else args["input"]
    return found


@rule(*_FREE.split())
def free(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """No number in the arguments counts channels, and no channel is dropped."""
    source = source_of(args)
    return compact(ctx.moved(node, source, labelling) for labelling in ctx.labellings(source))


@rule("squeeze")
def squeeze(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Dimensions of size 1 disappear; they hold no channels."""
    return free(ctx, node, args)


@rule("flatten", "view", "reshape", "_unsafe_view", "unflatten")
def reshape(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Dimensions are merged or split; literal sizes count the channels along them."""
    source = source_of(args)
    out = _real(ctx, node, compact(ctx.moved(node, source, labelling) for labelling in ctx.labellings(source)))
    name = next((n for n in ("size", "shape", "sizes") if n in args), None)
    if name is not None:
        first = args["dim"] % len(sizes(source)) if name == "sizes" else 0
        _counted(ctx, node, name, first, out, args[name])
    return out


def _real(ctx: Context, node: fx.Node, labellings: Labellings) -> Labellings:
    """Repeated values that are folded into a dimension of channels stay as often repeated as they are."""
    shadowed = [
        x
        for x in labellings
        if ctx.space.is_uniform(x) and any(y is not x and support(x) & support(y) for y in labellings)
    ]
    for labelling in shadowed:
        ctx.space.pin(labelling, where(node), "they are repeated a fixed number of times")
    return tuple(x for x in labellings if all(x is not y for y in shadowed))


def _counted(
    ctx: Context, node: fx.Node, name: str, first: int, labellings: Labellings, written: Sequence[Any]
) -> None:
    for place, value in enumerate(written):
        for labelling in labellings:
            if value != -1:
                ctx.counted(node, position_of(node, name), place, labelling, first + place, value)


@rule("expand", "expand_as", "repeat", "tile")
def expand(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Repeated values follow whatever channels they meet; literal sizes count those."""
    source, other = source_of(args), args.get("other")
    full, own = sizes(node), sizes(source)
    aligned = (1,) * (len(full) - len(own)) + own
    out = list(compact(ctx.moved(node, source, labelling) for labelling in ctx.labellings(source)))
    if other is not None:
        repeated = {d for d, size in enumerate(aligned) if size == 1}
        return (*out, *(labelling for labelling in ctx.labellings(other) if support(labelling) <= repeated))
    name = next(n for n in ("size", "repeats", "dims") if n in args)
    written = [1] * (len(full) - len(args[name])) + list(args[name])
    for dim, size in enumerate(full):
        if aligned[dim] == 1 and size > 1 and isinstance(written[dim], int) and not _is_batch(node, dim):
            out.append(along(ctx.space.uniform(size), dim, len(full)))
    if name == "size":
        _counted(ctx, node, name, 0, tuple(out), args[name])
    else:
        _counted(
            ctx, node, name, 0, tuple(labelling for labelling in out if ctx.space.is_uniform(labelling)), args[name]
        )
    return tuple(out)


def _is_batch(node: fx.Node, dim: int) -> bool:
    return not isinstance(node.meta["val"].shape[dim], int)


@rule("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty")
def created(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """One value everywhere: it follows whatever channels it meets."""
    rank = len(sizes(node))
    out = tuple(
        along(ctx.space.uniform(size), dim, rank)
        for dim, size in enumerate(sizes(node))
        if size > 1 and not _is_batch(node, dim)
    )
    _counted(ctx, node, "size", 0, out, args["size"])
    return out


@rule("pixel_shuffle", "pixel_unshuffle")
def pixels(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Channels become places, or places channels; only whole channels may go."""
    source, rank = args["self"], len(sizes(node))
    out = compact(ctx.moved(node, source, labelling) for labelling in ctx.labellings(source))
    for labelling in out:
        ctx.rigid_labelling(labelling, frozenset({rank - 2, rank - 1}), node, "whole blocks of pixels are made of them")
    return out


@rule("im2col")
def im2col(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """(B, C, H, W) to (B, C x kernel, places): the channel of every entry of a patch is the slow index."""
    ctx.rigid(args["self"], (-2, -1), node, "a patch slides over these channels")
    labels = ctx.channels(args["self"], 1, node)
    patch = args["kernel_size"][0] * args["kernel_size"][1]
    return () if labels is None else compact([along(labels.repeat_interleave(patch), 1, 3)])


@rule("roll")
def roll(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Places may roll; channels that roll by a constant must stay where they are."""
    dims = args["dims"] or range(len(sizes(args["self"])))
    ctx.rigid(args["self"], dims, node, "channels are rolled by a constant")
    return free(ctx, node, args)


@rule("unfold")
def unfold(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Windows over one dimension."""
    ctx.rigid(args["self"], (args["dimension"],), node, "a window slides over these channels")
    return free(ctx, node, args)


@rule("cat", "concat", "concatenate", "stack")
def cat(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Along the dimension labels are joined; elsewhere they meet index by index."""
    parts, rank = list(args["tensors"]), len(sizes(node))
    dim = args["dim"] % rank
    new = "stack" in str(node.target)
    own = [
        tuple(labelling.unsqueeze(dim) for labelling in ctx.labellings(p)) if new else ctx.labellings(p) for p in parts
    ]
    shapes = [tuple(1 if d == dim else s for d, s in enumerate(_shape(p, dim, new))) for p in parts]
    beside: tuple[Labellings, tuple[int, ...]] = (tuple(x for x in own[0] if dim not in support(x)), shapes[0])
    for labellings, shape in zip(own[1:], shapes[1:], strict=True):
        rest = tuple(x for x in labellings if dim not in support(x))
        beside = (meet(ctx, node, beside, (rest, shape)), shape)
    joined = _joined(
        ctx, node, parts, [tuple(x for x in labellings if dim in support(x)) for labellings in own], dim, new
    )
    return (*beside[0], *joined)


def _shape(part: fx.Node, dim: int, new: bool) -> tuple[int, ...]:
    own = sizes(part)
    return (*own[:dim], 1, *own[dim:]) if new else own


def _joined(
    ctx: Context, node: fx.Node, parts: Sequence[fx.Node], labellings: list[Labellings], dim: int, new: bool
) -> Labellings:
    """One labelling over the dimension along which tensors are joined; parts without channels hold `NONE`."""
    if not any(labellings):
        return ()
    rank = len(_shape(parts[0], dim, new))
    over: frozenset[int] = frozenset().union(*(support(x) for found in labellings for x in found))
    pieces = []
    for part, found in zip(parts, labellings, strict=True):
        full = _shape(part, dim, new)
        one = ctx.single(found, node)
        shape = [full[d] if d in over else 1 for d in range(rank)]
        pieces.append(torch.full(shape, NONE) if one is None else one.expand(shape))
    return compact([torch.cat(pieces, dim)])


@rule("pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad2d", "replication_pad1d")
def pad(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Padding of places passes; padding of channels with a constant makes new channels, counted by numbers."""
    source, amounts = source_of(args), list(args.get("pad", args.get("padding")))
    constant = args.get("mode", "constant") == "constant" and "pad2d" not in str(node.target)
    return tuple(_padded(ctx, node, labelling, amounts, constant=constant) for labelling in ctx.labellings(source))


def _padded(ctx: Context, node: fx.Node, labelling: Tensor, amounts: Sequence[int], *, constant: bool) -> Tensor:
    """A labelling after padding; `amounts` are (before, after) from the last dimension on."""
    for position in range(len(amounts) // 2):
        dim, added = labelling.dim() - 1 - position, list(amounts[2 * position : 2 * position + 2])
        if labelling.shape[dim] == 1 or added == [0, 0]:
            continue
        counted = constant and min(added) >= 0
        if not counted:
            ctx.rigid_labelling(
                labelling, frozenset({dim}), node, "channels are padded with copies of others, or cropped"
            )
        labelling = _widened(ctx, node, labelling, dim, [max(a, 0) for a in added], 2 * position if counted else None)
    return labelling


def _widened(
    ctx: Context, node: fx.Node, labelling: Tensor, dim: int, added: Collection[int], place: int | None
) -> Tensor:
    """A labelling with new channels at both ends of a dimension; they are counted from `place` on, or are none."""
    ends = []
    for side, count in enumerate(added):
        atoms = torch.full((count,), NONE) if place is None else ctx.space.fresh(count)
        atoms = along(atoms, dim, labelling.dim())
        if place is not None and count:
            ctx.counts.append(ChannelCount(node, position_of(node, "pad"), place + side, atoms, dim, count))
        ends.append(atoms.expand([count if d == dim else s for d, s in enumerate(labelling.shape)]))
    return torch.cat([ends[0], labelling, ends[1]], dim)
