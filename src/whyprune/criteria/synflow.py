"""SynFlow: what a unit's weights carry of the flow through the network of absolute weights, without any data.

Tanaka et al., NeurIPS 2020. [C] in evaluation mode every weight becomes |w|, the input is all ones, R is the sum of the
outputs, and a weight's score is |w dR/dw|. [I] A unit's score is the sum over its slices of a weight, reduced over
weights; buffers become absolute as well, as in the authors' code; the network runs in float64, since R grows
with depth. Everything that flows is positive and large, so that an activation with an upper bound (ReLU6, tanh,
sigmoid) would have no slope anywhere and all scores would be 0: such an activation hands on what it gets. At
initialisation scores are meant to be recomputed in rounds: choose an iterative schedule.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from whyprune.criteria.answer import scored
from whyprune.criteria.coupled import SliceScores, along_axes, reduced
from whyprune.data.batches import Batch
from whyprune.data.outputs import tensors_of
from whyprune.effects.effects import Effects
from whyprune.errors import InputError
from whyprune.interventions.suffix import chosen_units
from whyprune.scoring.contract import Question, scorer
from whyprune.structure.copies import duplicate
from whyprune.structure.network import Network
from whyprune.structure.state import State
from whyprune.structure.units import Unit

BOUNDED = ("relu6", "hardtanh", "tanh", "sigmoid", "hardsigmoid", "softsign", "clamp_max")
CLAMPS = ("clamp", "clip")


def synflow(
    start: Network | State, *, units: Sequence[Unit | str] | None = None, reduction: str | None = None
) -> Effects:
    """|w dR/dw| of every unit's weights; floating inputs of the trace are set to one, others stay.

    Args:
        start: a traced model, or a state of it.
        units: which units (default: all that are there).
        reduction: over coupled weights: `mean` (default), `sum` or `max`.

    Raises:
        InputError: the flow is not finite, another reduction, or an unknown unit.
    """
    state = State.of(start)
    chosen = chosen_units(state, units)
    scores = reduced(state, chosen, _saliency(state), reduction)
    return scored(state, chosen, scores, method="synflow", forward_passes=3.0, across_groups=True)


def _saliency(state: State) -> SliceScores:
    model = duplicate(state.model).double()
    held = model.state_dict(keep_vars=True)
    tensors = {k: v for k, v in (*model.named_parameters(), *model.named_buffers()) if k in held}  # tied ones once
    positive = {k: v.detach().abs() if v.is_floating_point() else v for k, v in tensors.items()}
    weights = {k: positive[k].requires_grad_() for k, _ in model.named_parameters()}
    example = state.network.example
    args, kwargs = pytree.tree_map(_ones, (example.args, example.kwargs))
    with torch.enable_grad(), _Unbounded():
        output = functional_call(model, {**positive, **weights}, args, kwargs)
        flow = torch.stack([t.sum() for t in tensors_of(output) if t.is_floating_point()]).sum()
        found = torch.autograd.grad(flow, list(weights.values()), allow_unused=True)
    if not bool(torch.isfinite(flow)):
        raise InputError("the flow of absolute weights overflows float64 in this network: choose another criterion")
    saliency = {
        name: (weight * gradient).detach().abs()
        for (name, weight), gradient in zip(weights.items(), found, strict=True)
        if gradient is not None
    }
    return along_axes(saliency.items(), lambda slices: slices.sum(dim=1))


class _Unbounded(TorchFunctionMode):
    """Activations with an upper bound hand on what they get."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "").rstrip("_")
        bounded = name in BOUNDED or (name in CLAMPS and _upper_bound(args, kwargs or {}))
        return args[0] if bounded and args else func(*args, **(kwargs or {}))


def _upper_bound(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a clamp of floating numbers has an upper bound."""
    given = bool(args) and isinstance(args[0], Tensor) and args[0].is_floating_point()
    return given and (len(args) > 2 or kwargs.get("max") is not None)


def _ones(value: Any) -> Any:
    return (
        torch.ones_like(value, dtype=torch.double) if isinstance(value, Tensor) and value.is_floating_point() else value
    )


@scorer(
    "synflow",
    kind="criterion",
    summary="what the weights carry of the flow through absolute weights",
    estimand="score",
    cost="one forward and one backward pass",
    guarantee="none; blind to data",
    paper="Tanaka et al., NeurIPS 2020",
    images=False,
    labels="no",
    gradients=True,
    reduces=True,
    most_images=0,
    scaling="invariant",
    duplicates="alike",
)
def synflow_scores(state: State, _batches: Sequence[Batch], question: Question) -> Effects:
    """Synaptic flow of every unit."""
    return synflow(state, units=question.units, reduction=question.reduction)
