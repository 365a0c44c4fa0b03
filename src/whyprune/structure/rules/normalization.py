"""Normalisation with statistics per channel, and the kinds whose statistics run over channels."""

from collections.abc import Iterable

import torch
from torch import fx

from whyprune.structure.labels import along, support
from whyprune.structure.operations import name_of, position_of, sizes, where
from whyprune.structure.rules.base import Arguments, Context, Rectangle, Value, compact, rule

_VECTORS = ("weight", "bias", "running_mean", "running_var")


@rule("batch_norm", "instance_norm")
def per_channel(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Every vector of statistics or scales is indexed by the channel, dimension 1."""
    data = args["input"]
    labels = ctx.channels(data, 1, node)
    for name in _VECTORS:
        if isinstance(args[name], fx.Node) and sizes(args[name])[0] > 1:
            own = ctx.channels(args[name], 0, node)
            if own is not None and labels is not None:
                ctx.meet(labels, own, node)
            else:
                ctx.space.pin(own, where(node), "it normalises features that are no known channels")
                ctx.space.pin(labels, where(node), "they are normalised by a constant")
    if args.get("training", args.get("use_input_stats")):
        _statistics(ctx, node, data, range(2, len(sizes(data))))
        if name_of(node) == "batch_norm":
            _statistics(ctx, node, data, (0,))
    return ctx.labellings(data)


def _statistics(ctx: Context, node: fx.Node, data: fx.Node, dims: Iterable[int]) -> None:
    """Notes channels that a statistic runs over."""
    over = set(dims)
    for labelling in ctx.over(data, over):
        ctx.reads(node, data, labelling, support(labelling) & over, affine=False, statistics=True)


@rule("layer_norm", "rms_norm")
def layer_norm(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Statistics run over the last dimensions; scales and shifts go with their channels."""
    data, shape = args["input"], args["normalized_shape"]
    rank = len(sizes(data))
    first = rank - len(shape)
    _statistics(ctx, node, data, range(first, rank))
    for labelling in ctx.over(data, range(first, rank)):
        for place, size in enumerate(shape):
            ctx.counted(node, position_of(node, "normalized_shape"), place, labelling, first + place, size)
    for name in ("weight", "bias"):
        vector = args.get(name)
        if isinstance(vector, fx.Node):
            own = tuple(x.reshape((1,) * first + tuple(x.shape)) for x in ctx.labellings(vector))
            _scaled(ctx, node, data, own, range(first, rank))
    return ctx.labellings(data)


def _scaled(ctx: Context, node: fx.Node, data: fx.Node, scales: tuple[torch.Tensor, ...], dims: Iterable[int]) -> None:
    mine = ctx.over(data, set(dims))
    for labelling in mine:
        partners = [x for x in scales if support(x) & support(labelling)]
        for partner in partners:
            ctx.meet(labelling, partner, node)
        if not partners:
            ctx.space.pin(labelling, where(node), "they are scaled by a constant")
    for scale in scales:
        if not any(support(scale) & support(labelling) for labelling in mine):
            ctx.space.pin(scale, where(node), "it normalises features that are no known channels")


@rule("group_norm")
def group_norm(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Statistics run over each group: whole groups may go as they are, single channels change them."""
    data, groups = args["input"], int(args["num_groups"])
    rank = len(sizes(data))
    labels = ctx.channels(data, 1, node)
    ctx.rigid(data, range(2, rank), node, "group norm computes statistics over these channels")
    for name in ("weight", "bias"):
        if isinstance(args[name], fx.Node) and labels is not None:
            own = ctx.channels(args[name], 0, node)
            ctx.space.pin(labels if own is None else None, where(node), "they are scaled by a constant")
            if own is not None:
                ctx.meet(labels, own, node)
    if labels is None:
        return ctx.labellings(data)
    spread = labels.reshape(groups, -1)
    ctx.rectangles.append(Rectangle(spread, support(spread), where(node), "groups must stay of equal size"))
    ctx.counted(node, position_of(node, "num_groups"), 0, spread, 0, groups)
    labelling = along(labels, 1, rank)
    ctx.reads(node, data, labelling, {1}, affine=False, statistics=True, inside=spread)
    return ctx.labellings(data)


@rule("softmax", "_softmax", "log_softmax", "_log_softmax")
def softmax(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Every value is divided by a sum over the dimension."""
    data = args["self"]
    dim = args["dim"] % len(sizes(data))
    _statistics(ctx, node, data, (dim,))
    return ctx.labellings(data)


@rule("_weight_norm", "_weight_norm_interface")
def weight_norm(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """A weight made of a direction and a length per output channel; `parametrized` keeps its values."""
    direction, length, dim = args["v"], args["g"], args["dim"]
    own, other = ctx.over(direction, {dim}), ctx.over(length, {dim})
    for left, right in zip(own, other, strict=False):
        ctx.meet(left, right, node)
    if len(own) != len(other):
        return None
    out = compact(ctx.labellings(direction))
    return out if isinstance(node.meta["val"], torch.Tensor) else [out, ctx.labellings(length)]
