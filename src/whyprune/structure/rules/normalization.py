"""Normalisation with statistics per channel, and the kinds whose statistics run over channels."""

from torch import fx

from whyprune.structure.rules.base import Arguments, Context, Value, name_of, rule, where


@rule("batch_norm", "instance_norm")
def per_channel(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Every vector of statistics or scales is indexed by the channel, dimension 1."""
    data = ctx.axes(args["input"])
    if data is None or len(data) < 2 or data[1] is None:
        for name in ("weight", "bias", "running_mean", "running_var"):
            ctx.pin(ctx.axes(args[name]), node, "it normalises features that are no known channels")
        return data
    if args.get("training", args.get("use_input_stats")):
        ctx.pin(data[2:], node, f"{name_of(node)} computes statistics over these channels")
    for name in ("weight", "bias", "running_mean", "running_var"):
        vector = ctx.axes(args[name])
        if vector is not None and vector[0] is not None:
            ctx.space.unite(data[1], vector[0])
    return data


@rule("layer_norm", "group_norm", "softmax", "_softmax", "log_softmax", "_log_softmax")
def across(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Its statistics change when a channel goes, so channels it normalises over are kept."""
    data = ctx.axes(args.get("input", args.get("self")))
    reason = f"{name_of(node)} computes statistics over channels: they would change when one goes"
    for name in ("weight", "bias"):
        ctx.pin(ctx.axes(args.get(name)), node, reason)
    for labels in _normalised(data or (), args):
        ctx.space.pin(labels, where(node), reason)
    return data


def _normalised(axes: tuple, args: Arguments) -> tuple:  # type: ignore[type-arg]
    if "normalized_shape" in args:
        return axes[len(axes) - len(args["normalized_shape"]) :]
    if "num_groups" in args:
        return axes[1:]
    return (axes[args["dim"]],) if axes else ()
