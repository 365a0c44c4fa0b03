"""Operations that treat every value by itself, and those that combine tensors value by value."""

from torch import Tensor, fx

from whyprune.structure.labels import Labellings, support
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
    labellings: Labellings = ()
    shape: tuple[int, ...] = (1,) * rank
    for operand in (n for n in node.all_input_nodes if isinstance(n.meta.get("val"), Tensor)):
        own = aligned(ctx, operand, rank)
        labellings = meet(ctx, node, (labellings, shape), own)
        shape = tuple(max(a, b) for a, b in zip(shape, own[1], strict=True))
    return labellings


def aligned(ctx: Context, operand: fx.Node, rank: int) -> tuple[Labellings, tuple[int, ...]]:
    """A tensor's labellings and shape, with dimensions of size 1 in front up to `rank`."""
    own = sizes(operand)
    lead = (1,) * (rank - len(own))
    return tuple(labelling.reshape(lead + tuple(labelling.shape)) for labelling in ctx.labellings(operand)), lead + own


def meet(
    ctx: Context, node: fx.Node, left: tuple[Labellings, tuple[int, ...]], right: tuple[Labellings, tuple[int, ...]]
) -> Labellings:
    """The labellings of two tensors, each with its shape, that are combined value by value."""
    out, rest = [], list(right[0])
    for labelling in left[0]:
        partners = [other for other in rest if support(labelling) & support(other)]
        if not partners:
            _alone(ctx, node, labelling, right[1])
            out.append(labelling)
            continue
        partner = _partner(ctx, labelling, partners)
        rest = [other for other in rest if other is not partner]
        ctx.meet(labelling, partner, node)
        out.append(labelling if support(labelling) >= support(partner) else partner)
    for other in rest:
        _alone(ctx, node, other, left[1])
        out.append(other)
    return tuple(_distinct(out))


def _partner(ctx: Context, labelling: Tensor, partners: list[Tensor]) -> Tensor:
    """The labelling that another one meets, if there are several: of the same dimensions, and of real channels."""
    return min(partners, key=lambda p: (ctx.space.is_uniform(p), support(p) != support(labelling)))


def _alone(ctx: Context, node: fx.Node, labelling: Tensor, shape: tuple[int, ...]) -> None:
    """A labelling without a partner: where the other tensor has more than one index, it says nothing of channels."""
    if any(shape[d] > 1 for d in support(labelling)):
        ctx.space.pin(labelling, where(node), "they meet values that are no known channels")


def _distinct(labellings: list[Tensor]) -> list[Tensor]:
    return [
        labelling for i, labelling in enumerate(labellings) if all(labelling is not other for other in labellings[:i])
    ]


@rule("prelu", "_prelu_kernel")
def prelu(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """One slope for all values, or one per channel, dimension 1."""
    data, slope = args["self"], args["weight"]
    labels, own = ctx.channels(data, 1, node), ctx.labellings(slope)
    if own and sizes(slope)[0] > 1:
        if labels is None:
            ctx.pin(slope, node, "its slopes belong to values that are no known channels")
        else:
            ctx.meet(own[0].reshape(-1), labels, node)
    return ctx.labellings(data)
