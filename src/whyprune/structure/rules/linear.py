"""Convolutions and linear layers: they read channels on one side and write new ones on the other."""

from typing import Any

from torch import fx

from whyprune.structure.labels import Axes, Labels
from whyprune.structure.rules.base import Arguments, Context, Reader, Value, blocks, rule, unknown, where


def _read(ctx: Context, node: fx.Node, data: Any, dim: int, data_labels: Labels | None, weight: Labels) -> None:
    """Unites what arrives with the weight's input axis."""
    if data_labels is None:
        ctx.space.pin(weight, where(node), "its input features are no channels of an earlier layer")
        return
    ctx.space.unite(weight, data_labels)
    ctx.readers.append(Reader(node, data, dim, data_labels))


def _write(ctx: Context, node: fx.Node, weight: Labels, bias: Any) -> Labels:
    """New channels: the weight's output axis and the bias live and die together."""
    bias_axes = ctx.axes(bias)
    if bias_axes is not None and bias_axes[0] is not None:
        ctx.space.unite(weight, bias_axes[0])
    ctx.writers.append((node, weight))
    return weight


@rule("conv1d", "conv2d", "conv3d")
def convolution(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """`weight` is (out, in / groups, *kernel); channels lie on the third dimension from the end of the kernel's."""
    weight, data = ctx.axes(args["weight"]), ctx.axes(args["input"])
    if weight is None or weight[0] is None or weight[1] is None or data is None:
        return unknown(ctx, node, "a convolution whose weight is computed, not a parameter")
    channel = len(data) - len(weight) + 1
    if args["groups"] == 1:
        _read(ctx, node, args["input"], channel, data[channel], weight[1])
    else:
        _grouped(ctx, node, args, data[channel], weight)
    out: list[Labels | None] = [None] * len(data)
    out[channel] = _write(ctx, node, weight[0], args["bias"])
    return tuple(out)


def _grouped(ctx: Context, node: fx.Node, args: Arguments, data: Labels | None, weight: Axes) -> None:
    """Depthwise: a filter is its channel. Otherwise the same place in every group goes together, groups stay even."""
    groups, out, inner = int(args["groups"]), weight[0], weight[1]
    assert out is not None
    assert inner is not None
    if data is None:
        ctx.pin(weight, node, "its input features are no channels of an earlier layer")
        return
    if len(inner) == 1 and len(out) == len(data):
        ctx.space.unite(out, data)
        ctx.readers.append(Reader(node, args["input"], len(ctx.axes(args["input"]) or ()) - len(weight) + 1, data))
        return
    for row in blocks(data, len(inner)):
        ctx.space.unite(inner, row)
    filters = blocks(out, len(out) // groups)
    for row in filters[1:]:
        ctx.space.unite(filters[0], row)
    ctx.readers.append(Reader(node, args["input"], len(ctx.axes(args["input"]) or ()) - len(weight) + 1, data))


@rule("linear")
def linear(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """`weight` is (out, in); channels lie on the last dimension."""
    weight, data = ctx.axes(args["weight"]), ctx.axes(args["input"])
    if weight is None or weight[0] is None or weight[1] is None or data is None:
        return unknown(ctx, node, "a linear map whose weight is computed, not a parameter")
    _read(ctx, node, args["input"], len(data) - 1, data[-1], weight[1])
    return (*data[:-1], _write(ctx, node, weight[0], args["bias"]))
