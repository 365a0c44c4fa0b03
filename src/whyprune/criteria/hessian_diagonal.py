"""Hessian diagonal: half the sum of h_ww w^2 over a unit's weights (optimal brain damage).

LeCun, Denker & Solla, NIPS 1990. [P] s = h_ww w^2 / 2 with the diagonal of the Gauss-Newton matrix, which is positive.
[C] DepGraph sums it over the coupled slices of a unit. Gradients are those of single images, since the square of a
batch's gradient is not the sum of squares.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from whyprune.criteria.answer import scored
from whyprune.criteria.coupled import along_axes, reduced
from whyprune.criteria.curvature import probes_of, ready, scalars
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.effects.outcomes import Outcome, as_outcome, judged
from whyprune.interventions.suffix import chosen_units
from whyprune.scoring.contract import Question, scorer
from whyprune.scoring.paid import paid_images
from whyprune.structure.copies import duplicate
from whyprune.structure.entry import entered
from whyprune.structure.network import Network
from whyprune.structure.state import State
from whyprune.structure.units import Unit


def hessian_diagonal(
    start: Network | State,
    data: Iterable[Any],
    *,
    outcome: Outcome | str | None = None,
    units: Sequence[Unit | str] | None = None,
    reduction: str | None = None,
    seed: int = 0,
) -> Effects:
    """h_ww w^2 / 2, summed over a unit's slice of every weight, reduced over coupled weights.

    Args:
        start: a traced model, or a state of it.
        data: batches; labels only if the outcome needs them.
        outcome: what harm is (default: that of `estimate`).
        units: which units (default: all that are there).
        reduction: over coupled weights: `mean` (default), `sum` or `max`.
        seed: of the random directions of outcomes without a gradient of their own.

    Raises:
        InputError: there is no data, missing labels, another reduction, or an unknown unit.
    """
    state, asked = judged(start, outcome)
    chosen = chosen_units(state, units)
    batches = list(entered(data, state.network))
    asked, passes = ready(state, asked, batches)
    weights = dict(state.model.named_parameters())
    curvature = _diagonal(state, batches, asked, seed)
    damage = {name: 0.5 * h * weights[name].detach().square() for name, h in curvature.items()}
    scores = reduced(state, chosen, along_axes(damage.items(), lambda slices: slices.sum(dim=1)), reduction)
    images = sum(map(len, batches))
    return scored(
        state,
        chosen,
        scores,
        method="hessian-diagonal",
        samples=images,
        forward_passes=passes + images * (1.0 + 2.0 * probes_of(asked)),
        across_groups=True,
    )


def _diagonal(state: State, batches: Sequence[Batch], outcome: Outcome, seed: int) -> dict[str, Tensor]:
    """Parameter -> the diagonal of the Gauss-Newton matrix, averaged over images; 0 where nothing reads it."""
    generator, probes = torch.Generator().manual_seed(seed), probes_of(outcome)
    model = duplicate(state.model)
    weights = {name: p.detach().requires_grad_() for name, p in model.named_parameters() if p.dim() > 1}
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    images = 0
    for batch in batches:
        for image, size in _one_by_one(batch, state.network.graph.batch_size):
            with torch.enable_grad():
                rows = state.network.outputs.rows_of(functional_call(model, weights, image.args, image.kwargs))[:size]
                labels = None if image.labels is None else image.labels[:size]
                for scalar in scalars(outcome, rows, labels, generator):
                    found = torch.autograd.grad(scalar, list(weights.values()), allow_unused=True, retain_graph=True)
                    for name, gradient in zip(weights, found, strict=True):
                        if gradient is not None:
                            total[name] += gradient.square() / probes
            images += 1
    return {name: found / images for name, found in total.items()}


def _one_by_one(batch: Batch, batch_size: int | None) -> Iterable[tuple[Batch, int]]:
    """Every image alone; of a network that runs on one batch size only, repeated, and how many of its rows count."""
    for k in range(len(batch)):
        yield batch[torch.full((batch_size or 1,), k)], 1


@scorer(
    "hessian-diagonal",
    kind="criterion",
    summary="half of the squared weights times their diagonal curvature (optimal brain damage)",
    estimand="score",
    cost="a few backward passes per image, one image at a time",
    guarantee="second order and diagonal only; no interval",
    paper="LeCun et al., NIPS 1990",
    gradients=True,
    reduces=True,
    most_images=64,
    scaling="invariant",
    duplicates="alike",
)
def hessian_diagonal_scores(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Optimal-brain-damage scores on as many of the first images as the budget pays for."""
    batches = paid_for(state, batches, question)
    return hessian_diagonal(
        state,
        batches,
        outcome=question.outcome,
        units=question.units,
        reduction=question.reduction,
        seed=question.seed,
    )


def paid_for(state: State, batches: Sequence[Batch], question: Question) -> list[Batch]:
    """As many of the first images as the question's budget pays for, with their backward passes.

    Raises:
        InputError: it pays for none.
    """
    each = 2.0 + 2.0 * probes_of(as_outcome(question.outcome, state.network.outputs))
    return paid_images(batches, question.forward_passes, each)
