"""Convolutions and linear layers: they read channels on one side and write new ones on the other."""

from typing import Any

from torch import fx

from whyprune.structure.labels import Labels
from whyprune.structure.rules.base import (
    Arguments,
    Context,
    Reader,
    Value,
    WidthSite,
    bind,
    blocks,
    rule,
    shape_of,
    unknown,
    where,
)

_GROUPS = 6  # position of `groups` among the arguments of a convolution


def _weight(ctx: Context, args: Arguments) -> tuple[Labels, Labels] | None:
    """Labels of a weight's output and input axis; None for a weight that is computed or no parameter."""
    axes = ctx.axes(args["weight"])
    if axes is None or args["weight"].op != "placeholder" or axes[0] is None or axes[1] is None:
        return None
    return axes[0], axes[1]


def _read(ctx: Context, node: fx.Node, dim: int, weight: Labels) -> None:
    """Unites what arrives with the weight's input axis."""
    data = bind(node)["input"]
    labels = (ctx.axes(data) or ())[dim]
    if labels is None:
        ctx.space.pin(weight, where(node), "its input features are no channels of an earlier layer")
        return
    ctx.space.unite(weight, labels)
    ctx.readers.append(Reader(node, data, dim, labels))


def _write(ctx: Context, node: fx.Node, weight: Labels, bias: Any) -> Labels:
    """New channels: the weight's output axis and the bias live and die together."""
    bias_axes = ctx.axes(bias)
    if bias_axes is not None and bias_axes[0] is not None:
        ctx.space.unite(weight, bias_axes[0])
    ctx.writers.append((node, weight))
    return weight


@rule("conv1d", "conv2d", "conv3d")
def convolution(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """`weight` is (out, in / groups, *kernel); the channels lie before the kernel's dimensions."""
    weight, data = _weight(ctx, args), ctx.axes(args["input"])
    if weight is None or data is None:
        return unknown(ctx, node, "a convolution whose weight is computed, not a parameter")
    out, inner = weight
    channel = len(data) - len(shape_of(args["weight"])) + 1
    ctx.pin(data[channel + 1 :], node, "a convolution slides over these channels")
    if args["groups"] == 1:
        _read(ctx, node, channel, inner)
    else:
        _grouped(ctx, node, channel, out, inner)
    written: list[Labels | None] = [None] * len(data)
    written[channel] = _write(ctx, node, out, args["bias"])
    return tuple(written)


def _grouped(ctx: Context, node: fx.Node, channel: int, out: Labels, inner: Labels) -> None:
    """Depthwise: a filter is its channel. Otherwise the same place in every group goes together."""
    args = bind(node)
    groups, labels = int(args["groups"]), (ctx.axes(args["input"]) or ())[channel]
    if labels is None:
        ctx.pin((out, inner), node, "its input features are no channels of an earlier layer")
        return
    ctx.readers.append(Reader(node, args["input"], channel, labels))
    if len(out) == len(labels) == groups:
        ctx.space.unite(out, labels)
        ctx.sites.append(WidthSite(node, _GROUPS, (0,), (labels,), (groups,), adjustable=False))
        return
    for row in blocks(labels, len(inner)):
        ctx.space.unite(inner, row)
    filters = blocks(out, len(out) // groups)
    for row in filters[1:]:
        ctx.space.unite(filters[0], row)


@rule("linear")
def linear(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """`weight` is (out, in); channels lie on the last dimension."""
    weight, data = _weight(ctx, args), ctx.axes(args["input"])
    if weight is None or data is None:
        return unknown(ctx, node, "a linear map whose weight is computed, not a parameter")
    ctx.pin(data[:-1], node, "a linear layer runs once for each of these channels")
    _read(ctx, node, len(data) - 1, weight[1])
    return (*[None] * (len(data) - 1), _write(ctx, node, weight[0], args["bias"]))
