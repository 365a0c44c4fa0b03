"""Pooling, resizing and reductions: over places channels pass through, over channels they are mixed."""

from torch import Tensor, fx

from whyprune.structure.labels import Labellings, support
from whyprune.structure.operations import name_of, sizes, where
from whyprune.structure.rules.base import Arguments, Context, Value, compact, rule
from whyprune.structure.rules.elementwise import pointwise

_POOLING = (
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d "
    "max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d "
    "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d "
    "upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler_2d "
    "grid_sampler"
)
_EXACT = ("sum", "linalg_vector_norm", "norm", "frobenius_norm")


@rule(*_POOLING.split())
def pooling(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Works within each channel; the trailing dimensions are places. Some give places' indices as well."""
    data = next(iter(args.values()))
    rank, name = len(sizes(data)), name_of(node)
    places = next((int(c) for c in reversed(name) if c.isdigit()), 2)
    ctx.rigid(data, range(rank - places, rank), node, f"{name} runs over these channels")
    out = ctx.besides(data, range(rank - places, rank))
    value = node.meta["val"]
    return out if isinstance(value, Tensor) else [out for _ in value]


@rule("mean", "sum", "amax", "amin", "logsumexp", "var", "std", "prod", "linalg_vector_norm", "norm", "frobenius_norm")
def reduction(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Reduced dimensions disappear; channels that are reduced are read here."""
    exact = name_of(node) in _EXACT and args.get("ord", args.get("p", 2)) == 2
    return _reduced(ctx, node, args["self"], args.get("dim"), bool(args.get("keepdim")), statistics=not exact)


@rule("max", "min", "median", "var_mean", "std_mean", "argmax", "argmin")
def with_indices(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Reductions that give several tensors, or indices: those of channels would be others after a removal."""
    data = args["self"]
    if "other" in args:
        return pointwise(ctx, node, args)
    indices = [u for u in node.users if len(u.args) > 1 and u.args[1] == 1 and u.users]
    if name_of(node).startswith("arg") or (indices and "mean" not in name_of(node)):
        dims = range(len(sizes(data))) if args.get("dim") is None else (args["dim"],)
        ctx.rigid(data, dims, node, "the indices of these channels are used")
    out = _reduced(ctx, node, data, args.get("dim"), bool(args.get("keepdim")), statistics=True)
    value = node.meta["val"]
    return out if isinstance(value, Tensor) else [out for _ in value]


def _reduced(ctx: Context, node: fx.Node, data: fx.Node, dims: object, keep: bool, *, statistics: bool) -> Labellings:
    rank = len(sizes(data))
    listed = [dims] if isinstance(dims, int) else list(dims or range(rank))  # type: ignore[call-overload]
    gone = {d % rank for d in listed}
    out = []
    for given in ctx.labellings(data):
        spread = support(given) & gone and support(given) - gone
        labelling = ctx.space.tie(given, support(given) & gone, where(node)) if spread else given
        if support(labelling) & gone:
            ctx.reads(node, data, labelling, support(labelling) & gone, affine=False, statistics=statistics)
        else:
            index = tuple(slice(0, 1) if d in gone else slice(None) for d in range(rank))
            small = labelling[index]
            out.append(small if keep else small.reshape([s for d, s in enumerate(small.shape) if d not in gone]))
    return compact(out)


@rule("cumsum", "cumprod", "sort", "topk", "argsort")
def ordered(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """The order along a dimension matters: its channels stay."""
    data, dim = args["self"], args.get("dim", -1)
    ctx.rigid(data, (dim,), node, f"{name_of(node)} runs over these channels")
    out = ctx.besides(data, {dim % len(sizes(data))})
    value = node.meta["val"]
    return out if isinstance(value, Tensor) else [out for _ in value]
