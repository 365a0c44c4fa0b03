"""Convolutions, linear layers and embeddings: they read channels on one side and write new ones on the other."""

from typing import Any

from torch import Tensor, fx

from whyprune.structure.labels import along
from whyprune.structure.operations import position_of, sizes, where
from whyprune.structure.rules.base import Arguments, ChannelCount, Context, Value, rule, vector_labellings

STRANGERS = "its input features are no channels of an earlier layer"


@rule("conv1d", "conv2d", "conv3d")
def convolution(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """`weight` is (out, in / groups, *kernel); the channels lie before the kernel's dimensions."""
    return _convolve(ctx, node, args, write=0, read=1)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """`weight` is (in, out / groups, *kernel)."""
    return _convolve(ctx, node, args, write=1, read=0)


def _convolve(ctx: Context, node: fx.Node, args: Arguments, write: int, read: int) -> Value:
    weight, data, groups = args["weight"], args["input"], args["groups"]
    if not isinstance(groups, int):
        return None
    rank, kernel = len(sizes(data)), len(sizes(weight)) - 2
    channel = rank - kernel - 1
    ctx.rigid(data, range(channel + 1, rank), node, "a convolution slides over these channels")
    ctx.rigid(weight, range(2, kernel + 2), node, "they are places of a kernel")
    labels = _channels(ctx, data, channel, node)
    own = [_channels(ctx, weight, axis, node) for axis in (0, 1)]
    count = sizes(node)[channel]
    if groups == 1:
        _unite(ctx, node, own[read], labels)
        out = own[write]
    else:
        out = _grouped(ctx, node, args, (own[0], own[1]), labels, transposed=write == 1)
    if labels is not None and len(labels) > 1:
        ctx.reads(node, data, along(labels, channel, rank), {channel}, affine=True)
    out = _with_bias(ctx, node, out if out is not None and len(out) == count else None, args["bias"])
    passing = ctx.besides(data, range(channel, rank))
    return (*passing, *vector_labellings(out, channel, rank))


def _channels(ctx: Context, value: fx.Node, dim: int, node: fx.Node) -> Tensor | None:
    return ctx.channels(value, dim, node) if sizes(value)[dim] > 1 else None


def _unite(ctx: Context, node: fx.Node, weight: Tensor | None, labels: Tensor | None) -> None:
    """What arrives goes with the weight's input axis."""
    if weight is not None and labels is not None and len(weight) == len(labels):
        ctx.meet(weight, labels, node)
        return
    ctx.space.pin(weight, where(node), STRANGERS)
    ctx.space.pin(labels, where(node), "a weight without channels reads them")


def _with_bias(ctx: Context, node: fx.Node, out: Tensor | None, bias: Any) -> Tensor | None:
    """New channels: the weight's output axis and the bias live and die together."""
    if isinstance(bias, fx.Node) and sizes(bias)[0] > 1:
        own = ctx.channels(bias, 0, node)
        if own is not None and out is not None:
            ctx.meet(out, own, node)
        ctx.space.pin(out if own is None else None, where(node), "its bias is no parameter")
    if out is not None:
        ctx.writers.append((node, out))
    return out


def _grouped(
    ctx: Context,
    node: fx.Node,
    args: Arguments,
    own: tuple[Tensor | None, Tensor | None],
    labels: Tensor | None,
    *,
    transposed: bool,
) -> Tensor | None:
    """Whole groups go, or the same place in every group: whichever gives the finer units."""
    weight, groups = args["weight"], int(args["groups"])
    count = 0 if labels is None else len(labels)
    inside = sizes(weight)[0] // groups if transposed else sizes(weight)[1]
    first, second = own
    if labels is None or first is None:
        for axis in own:
            ctx.space.pin(axis, where(node), STRANGERS)
        return None if transposed else first
    written = None if transposed else first
    if groups >= inside:
        heads = ctx.space.tie(labels.reshape(groups, count // groups), (1,), where(node)).flatten()
        ctx.space.unite(first.reshape(groups, -1), heads[:, None])
        ctx.space.pin(second, where(node), "whole groups of a grouped convolution go")
        atoms = heads if transposed else None
        ctx.counts.append(ChannelCount(node, position_of(node, "groups"), 0, heads, 0, groups))
        per_group = sizes(weight)[1]
        return atoms.repeat_interleave(per_group) if atoms is not None else written
    rows = labels.reshape(groups, inside)
    ctx.space.tie(rows, (0,), where(node))
    if transposed:
        ctx.meet(first, labels, node)
        return None if second is None else second.repeat(groups)
    if second is not None:
        ctx.meet(second, rows[0], node)
    ctx.space.tie(first.reshape(groups, -1), (0,), where(node))
    return written


@rule("linear")
def linear(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """`weight` is (out, in); channels lie on the last dimension. Other dimensions pass through."""
    data, weight = args["input"], args["weight"]
    rank = len(sizes(data))
    labels = _channels(ctx, data, rank - 1, node)
    if sizes(data)[-1] > 1:
        _unite(ctx, node, ctx.channels(weight, 1, node), labels)
    if labels is not None:
        ctx.reads(node, data, along(labels, rank - 1, rank), {rank - 1}, affine=True)
    out = _with_bias(ctx, node, _channels(ctx, weight, 0, node), args["bias"])
    return (*ctx.besides(data, {rank - 1}), *vector_labellings(out, rank - 1, rank))


@rule("embedding")
def embedding(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """`weight` is (words, features): a word's features are channels, the words stay."""
    weight = args["weight"]
    ctx.rigid(weight, {0}, node, "all words of an embedding stay")
    for labelling in ctx.labellings(args["indices"]):
        ctx.space.pin(labelling, where(node), "they are used as indices")
    out = _channels(ctx, weight, 1, node)
    if out is not None:
        ctx.writers.append((node, out))
    rank = len(sizes(node))
    return vector_labellings(out, rank - 1, rank)
