"""Gradient estimators: the effect of do(unit := v) from a Taylor expansion at the activation that is there.

With delta = v - a at every place, g the gradient of the outcome Y where the unit is read, and H its second derivative:
Y(do(u := v)) - Y ~ g·delta + delta'H delta / 2. Molchanov et al. (CVPR 2019) and attribution patching (AtP*, arXiv
2403.00745) use the first term [P]. All units at once take one forward and a few backward passes.

Second order [I]: where the outcome has a gradient, H is replaced by the image's own Fisher term, delta'H delta ~
(g·delta)². That has a reason for `CrossEntropy` only; for `Margin` and `ClassLogit`, whose curvature is the network's
own, it ranks units better than the first order alone and gets their sizes wrong. For `LogitShift` the gradient is 0,
and H is known but for the network's own curvature: Y ~ |J delta|² / scale = mean over random directions s of
(s·J delta)² / scale, no factor 1/2: exact where the network is linear behind the unit. `curvature="hessian"` takes the
true second derivative, unit by unit; it costs more than the exact effect, and shows what the approximation leaves out.

What it does not claim: the expansion is local, and removing a unit is no small step, so the estimate has an error that
no number of images shrinks (`approximate`); intervals count sampling only. The first order is blind to saturation. On
images that the network was trained on, the gradient of cross-entropy vanishes: give held-out or augmented images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from whyprune.causal.gradient.curvature import hessian_cost, second_order
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects, from_samples, from_scores
from whyprune.effects.outcomes import Outcome, Quadratic, as_outcome, judged
from whyprune.errors import InputError
from whyprune.interventions.sensitivity import (
    PROBES,
    Sensitivity,
    is_differentiable,
    sensitivity,
    sensitivity_cost,
)
from whyprune.interventions.suffix import chosen_units, plain_cost, reference, relative_cost, suffixes
from whyprune.interventions.values import CONSTANT, Intervention, checked, fit_cost
from whyprune.progress import Progress
from whyprune.scoring.contract import CONSTANT_INTERVENTIONS, Question, scorer
from whyprune.scoring.paid import paid_images
from whyprune.structure.network import Network
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.units import Unit

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Expansion:
    """How far the expansion goes.

    Attributes:
        order: 1 or 2.
        curvature: `fisher` (free) or `hessian` (true second derivatives; more than the exact effect costs).
        absolute: first order only: the mean absolute change instead of the mean change; a score, no effect.
        probes: directions of the logits, for `LogitShift`; as many as classes, rounded up to a power of 2, are exact.
    """

    order: int = 2
    curvature: Literal["fisher", "hessian"] = "fisher"
    absolute: bool = False
    probes: int = PROBES


@scorer(
    "gradient",
    kind="estimator",
    summary="second-order expansion of the outcome where a unit is read",
    estimand="single effect, approximate",
    cost="one forward and four backward passes per image, for all units (one where the outcome has a gradient)",
    guarantee="none on its size: a local approximation, exact only where the network is linear behind the unit; the "
    "interval counts sampling, not that",
    paper="Molchanov et al., CVPR 2019; Kramár et al., AtP*, arXiv 2403.00745",
    gradients=True,
    interventions=CONSTANT_INTERVENTIONS,
    individual=True,
    scaling="invariant",
    duplicates="alike",
)
def gradient(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Second order, all units from a few backward passes."""
    return gradient_effects(state, batches, question, method="gradient")


@scorer(
    "gradient-first",
    kind="estimator",
    summary="the first order of the outcome alone, with its sign",
    estimand="single effect, approximate; for `LogitShift`, whose first order is 0, a score",
    cost="that of `gradient`",
    guarantee="none: blind to saturation; on the network of our tests it ranks effects on cross-entropy no better than "
    "chance",
    paper="Molchanov et al., CVPR 2019",
    gradients=True,
    interventions=CONSTANT_INTERVENTIONS,
    individual=True,
    scaling="invariant",
    duplicates="alike",
)
def gradient_first(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Signed first order.

    `LogitShift` has no first order at the dense network: the length of the logits' first-order change is given, as a
    score, whatever is gone.
    """
    return gradient_effects(state, batches, question, Expansion(order=1), method="gradient-first")


def gradient_effects(
    start: Network | State,
    batches: Sequence[Batch],
    question: Question,
    expansion: Expansion | None = None,
    *,
    method: str = "gradient",
) -> Effects:
    """Effects of units from the expansion of the outcome.

    Args:
        start: a traced model, or a state of it.
        batches: held-out or augmented images; labels only if the outcome needs them.
        question: the question; interventions are those with a constant: `zero`, `mean`, `optimal`, `closed-form`.
        expansion: how far to go (default: second order with Fisher's curvature).
        method: the name in the result.

    Raises:
        InputError: no data, no usable derivative, another intervention, or too small a budget.
    """
    how = Expansion() if expansion is None else expansion
    _check(question, how)
    state, asked = judged(start, question.outcome)
    chosen, replay = chosen_units(state, question.units), Replay.of(state)
    dense = reference(state, replay)
    batches = _affordable(state, replay, batches, question, how, chosen)
    if not batches:
        raise InputError("there is no data: gradients are taken on images")
    outcome = asked.fit(torch.cat([dense.logits(b) for b in batches]))
    _check_outcome(outcome, how)
    value = Intervention(checked(question.intervention)).fit(
        replay, batches, outcome, chosen, progress=question.progress
    )
    images = sum(map(len, batches))
    given = tuple(u.name for u in state.removed)
    about: dict[str, Any] = {"outcome": outcome.name, "intervention": value.value, "method": method, "given": given}
    with Progress(question.progress) as bars:
        if how.curvature == "hessian":
            bar = bars.add("Differentiating twice", images * len(chosen))
            first, second = second_order(replay, dense, batches, chosen, outcome, value, lambda n: bars.advance(bar, n))
            forward_passes = images * (plain_cost(state) + hessian_cost(replay, chosen))
        else:
            bar = bars.add("Running backward", images)
            found = sensitivity(
                replay,
                batches,
                outcome,
                question.seed,
                dense=dense,
                probes=how.probes,
                value=value,
                progress=lambda n: bars.advance(bar, n),
            )
            places = [state.network.units.index(unit) for unit in chosen]
            first, second = _fisher(found, places)
            forward_passes = found.forward_passes + images
    forward_passes += value.forward_passes
    if how.order == 1 and (how.absolute or not is_differentiable(outcome)):
        change = np.abs(first) if is_differentiable(outcome) else np.sqrt(second)
        kept = change.astype(np.float32) if question.per_image else None
        return from_scores(
            chosen, change.mean(axis=1), samples=images, per_image=kept, forward_passes=forward_passes, **about
        )
    effects = first + second if how.order == 2 else first
    return from_samples(
        chosen,
        effects.astype(np.float32),
        keep_images=question.per_image,
        estimand="conditional" if given else "single",
        forward_passes=forward_passes,
        approximate=True,
        **about,
    )


def _fisher(found: Sensitivity, places: Sequence[int]) -> tuple[Floats, Floats]:
    """First- and second-order terms of the units at these places, (units, images) each."""
    first, shifts = found.first[places].double().numpy(), found.shifts[:, places].double().numpy()
    if found.differentiable:
        return first, 0.5 * first**2
    return first, (shifts**2).mean(axis=0) / found.scale


def _affordable(
    state: State, replay: Replay, batches: Sequence[Batch], question: Question, how: Expansion, chosen: Sequence[Unit]
) -> Sequence[Batch]:
    """As many of the first images as the budget pays for."""
    if question.forward_passes is None:
        return batches
    outcome, moved = as_outcome(question.outcome, state.network.outputs), plain_cost(state) > 1
    probes = 1 if is_differentiable(outcome) else how.probes
    each = 1.0 + sensitivity_cost(probes, moved=moved and isinstance(outcome, Quadratic))
    if how.curvature == "hessian":
        each = plain_cost(state) + hessian_cost(replay, chosen)
    measuring = relative_cost(replay.network, suffixes(replay, chosen)) * len(chosen)
    each += fit_cost(checked(question.intervention), measuring)
    return paid_images(batches, question.forward_passes, each, fewest=2, work="gradients on")


def _check(question: Question, how: Expansion) -> None:
    if checked(question.intervention) not in CONSTANT:
        raise InputError(
            f"gradients do not estimate effects under {question.intervention!r}: choose from {', '.join(CONSTANT)}"
        )
    if how.order not in (1, 2) or how.curvature not in ("fisher", "hessian") or how.probes < 1:
        raise InputError(f"no such expansion: {how}: order is 1 or 2, curvature fisher or hessian, probes at least 1")
    if how.absolute and how.order == 2:
        raise InputError("absolute=True is for order=1: the second order has its sign from the network")


def _check_outcome(outcome: Outcome, how: Expansion) -> None:
    if how.curvature == "fisher" and not is_differentiable(outcome) and not isinstance(outcome, Quadratic):
        raise InputError(
            f"outcome {outcome.name} has no gradient that says what removal does: choose logit-shift, cross-entropy, "
            "margin or ClassLogit; for a smooth function of your own, Expansion(curvature='hessian')"
        )
