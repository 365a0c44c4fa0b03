"""Pooling, resizing and reductions over places: channels pass through."""

from torch import Tensor, fx

from whyprune.structure.labels import Labels
from whyprune.structure.rules.base import Arguments, Context, Value, name_of, rule, where

_POOLING = (
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d "
    "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d "
    "upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d"
)


@rule(*_POOLING.split())
def pooling(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Works within each channel; the trailing dimensions are places. Some give places' indices as well."""
    data = ctx.axes(next(iter(args.values())))
    if data is None:
        return None
    places = int(name_of(node)[-2])
    ctx.pin(data[-places:], node, f"{name_of(node)} runs over these channels")
    out = (*data[:-places], *[None] * places)
    value = node.meta["val"]
    return out if isinstance(value, Tensor) else (out,) * len(value)


@rule("mean", "sum", "amax", "amin")
def reduction(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Reduced places disappear; a reduced channel dimension mixes channels and is kept whole."""
    data = ctx.axes(args["self"])
    if data is None:
        return None
    dims = args.get("dim")
    listed = [dims] if isinstance(dims, int) else list(dims or range(len(data)))
    reduced = {d % len(data) for d in listed}
    out: list[Labels | None] = []
    for dim, labels in enumerate(data):
        if dim not in reduced:
            out.append(labels)
            continue
        ctx.space.pin(labels, where(node), f"{name_of(node)} reduces over channels")
        if args.get("keepdim"):
            out.append(None)
    return tuple(out)
