"""Operations that treat every value by itself, and those that combine tensors value by value."""

from torch import Tensor, fx

from whyprune.structure.labels import Layers, support
from whyprune.structure.operations import sizes, where
from whyprune.structure.rules.base import Arguments, Context, Value, rule

_UNTAGGED = (
    "hardswish log_sigmoid dropout feature_dropout alpha_dropout feature_alpha_dropout contiguous detach alias to "
    "_to_copy type_as lift_fresh_copy rsub fill masked_fill __and__ __or__ __xor__ zeros_like ones_like full_like "
    "copy empty_like rand_like randn_like clone identity _conj conj real imag"
)


@rule("pointwise", *_UNTAGGED.split())
def pointwise(ctx: Context, node: fx.Node, _args: Arguments) -> Value:
    """Channels of all tensors among the arguments are united where they meet; size 1 is broadcast."""
    rank = len(sizes(node))
    layers: Layers = ()
    shape: tuple[int, ...] = (1,) * rank
    for operand in (n for n in node.all_input_nodes if isinstance(n.meta.get("val"), Tensor)):
        own = aligned(ctx, operand, rank)
        layers = meet(ctx, node, (layers, shape), own)
        shape = tuple(max(a, b) for a, b in zip(shape, own[1], strict=True))
    return layers


def aligned(ctx: Context, operand: fx.Node, rank: int) -> tuple[Layers, tuple[int, ...]]:
    """A tensor's layers and shape, with dimensions of size 1 in front up to `rank`."""
    own = sizes(operand)
    lead = (1,) * (rank - len(own))
    return tuple(layer.reshape(lead + tuple(layer.shape)) for layer in ctx.layers(operand)), lead + own


def meet(
    ctx: Context, node: fx.Node, left: tuple[Layers, tuple[int, ...]], right: tuple[Layers, tuple[int, ...]]
) -> Layers:
    """The layers of two tensors, each with its shape, that are combined value by value."""
    out, rest = [], list(right[0])
    for layer in left[0]:
        partners = [other for other in rest if support(layer) & support(other)]
        if not partners:
            _alone(ctx, node, layer, right[1])
            out.append(layer)
            continue
        partner = _partner(ctx, layer, partners)
        rest = [other for other in rest if other is not partner]
        ctx.meet(layer, partner, node)
        out.append(layer if support(layer) >= support(partner) else partner)
    for other in rest:
        _alone(ctx, node, other, left[1])
        out.append(other)
    return tuple(_distinct(out))


def _partner(ctx: Context, layer: Tensor, partners: list[Tensor]) -> Tensor:
    """The layer that another one meets, if there are several: of the same dimensions, and of real channels."""
    return min(partners, key=lambda p: (ctx.space.is_uniform(p), support(p) != support(layer)))


def _alone(ctx: Context, node: fx.Node, layer: Tensor, shape: tuple[int, ...]) -> None:
    """A layer without a partner: where the other tensor has more than one index, it says nothing of channels."""
    if any(shape[d] > 1 for d in support(layer)):
        ctx.space.pin(layer, where(node), "they meet values that are no known channels")


def _distinct(layers: list[Tensor]) -> list[Tensor]:
    return [layer for i, layer in enumerate(layers) if all(layer is not other for other in layers[:i])]


@rule("prelu", "_prelu_kernel")
def prelu(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """One slope for all values, or one per channel, dimension 1."""
    data, slope = args["self"], args["weight"]
    labels, own = ctx.channels(data, 1, node), ctx.layers(slope)
    if own and sizes(slope)[0] > 1:
        if labels is None:
            ctx.pin(slope, node, "its slopes belong to values that are no known channels")
        else:
            ctx.meet(own[0].reshape(-1), labels, node)
    return ctx.layers(data)
