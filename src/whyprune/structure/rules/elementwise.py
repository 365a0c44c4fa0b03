"""Operations that treat every value by itself, and those that combine two tensors value by value."""

from typing import Any

from torch import fx

from whyprune.structure.labels import Axes, Labels
from whyprune.structure.rules.base import Arguments, Context, Value, rule, shape_of, unknown, where

_UNARY = (
    "relu relu6 hardtanh hardswish hardsigmoid silu gelu sigmoid tanh leaky_relu elu selu celu softplus mish "
    "log_sigmoid abs neg exp sqrt rsqrt square dropout feature_dropout alpha_dropout feature_alpha_dropout "
    "clone contiguous detach alias to _to_copy type_as identity lift_fresh_copy"
)


@rule(*_UNARY.split())
def unary(ctx: Context, _node: fx.Node, args: Arguments) -> Value:
    """Labels pass through."""
    return ctx.axes(next(iter(args.values())))


@rule("clamp", "clamp_min", "clamp_max")
def clamp(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Labels pass through where the bounds are numbers."""
    if len(node.all_input_nodes) > 1:
        return unknown(ctx, node, "the bounds are tensors: they may differ from channel to channel")
    return ctx.axes(args["self"])


@rule("add", "sub", "mul", "div", "maximum", "minimum")
def binary(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Labels of both sides are united where they meet; dimensions of size 1 are broadcast."""
    left, right = args["self"], args["other"]
    left_axes, right_axes = ctx.axes(left), ctx.axes(right)
    if left_axes is None or right_axes is None:
        return left_axes if right_axes is None else right_axes
    rank = len(shape_of(node))
    sides = [_aligned(left, left_axes, rank), _aligned(right, right_axes, rank)]
    out: list[Labels | None] = []
    for (size_l, labels_l), (size_r, labels_r) in zip(*sides, strict=True):
        if _is_one(size_l) and not _is_one(size_r):
            ctx.space.pin(labels_l, where(node), "one channel is broadcast over many")
            out.append(labels_r)
        elif _is_one(size_r) and not _is_one(size_l):
            ctx.space.pin(labels_r, where(node), "one channel is broadcast over many")
            out.append(labels_l)
        elif labels_l is None and labels_r is None:
            out.append(None)
        else:
            out.append(ctx.join(labels_l, labels_r, node))
    return tuple(out)


def _aligned(tensor: Any, axes: Axes, rank: int) -> list[tuple[Any, Labels | None]]:
    missing = rank - len(axes)
    return [(1, None)] * missing + list(zip(shape_of(tensor), axes, strict=True))


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1
