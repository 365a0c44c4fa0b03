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
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from whyprune.causal.gradient.curvature import hessian_cost, second_order
from whyprune.data.batches import Batch, cut_images
from whyprune.effects.effects import Effects, from_samples, from_scores
from whyprune.effects.outcomes import LogitShift, Outcome, as_outcome
from whyprune.errors import InputError
from whyprune.interventions.sensitivity import PROBES, is_differentiable, sensitivity
from whyprune.interventions.suffix import chosen_units, relative_cost, suffixes
from whyprune.interventions.values import CONSTANT, Intervention, checked, fit_cost
from whyprune.progress import Progress
from whyprune.scoring.contract import Question
from whyprune.structure.network import Network
from whyprune.structure.replay import Replay
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


def gradient(network: Network, batches: Sequence[Batch], question: Question) -> Effects:
    """The estimator `gradient`: second order, all units from a few backward passes."""
    return gradient_effects(network, batches, question, method="gradient")


def gradient_first(network: Network, batches: Sequence[Batch], question: Question) -> Effects:
    """The estimator `gradient-first`: signed first order.

    `LogitShift` has no first order at the dense network: there the length of the logits' first-order change is
    given, as a score.
    """
    return gradient_effects(network, batches, question, Expansion(order=1), method="gradient-first")


def gradient_effects(
    network: Network,
    batches: Sequence[Batch],
    question: Question,
    expansion: Expansion | None = None,
    *,
    method: str = "gradient",
) -> Effects:
    """Effects of units from the expansion of the outcome.

    Args:
        network: a traced model.
        batches: held-out or augmented images; labels only if the outcome needs them.
        question: the question; interventions are those with a constant: `zero`, `mean`, `optimal`, `closed-form`.
        expansion: how far to go (default: second order with Fisher's curvature).
        method: the name in the result.

    Raises:
        InputError: no data, no usable derivative, another intervention, or too small a budget.
    """
    how = Expansion() if expansion is None else expansion
    _check(question, how)
    chosen = chosen_units(network, question.units)
    replay = Replay(network)
    batches = _affordable(replay, batches, question, how, chosen)
    if not batches:
        raise InputError("there is no data: gradients are taken on images")
    outcome = as_outcome(question.outcome).fit(torch.cat([replay.logits(b) for b in batches]))
    _check_outcome(outcome, how)
    value = Intervention(checked(question.intervention)).fit(
        replay, batches, outcome, chosen, progress=question.progress
    )
    images = sum(map(len, batches))
    about = {"outcome": outcome.name, "intervention": value.value, "method": method}
    with Progress(question.progress) as bars:
        if how.curvature == "hessian":
            bar = bars.add("Differentiating twice", images * len(chosen))
            first, second = second_order(replay, batches, chosen, outcome, value, lambda n: bars.advance(bar, n))
            forward_passes = images * (1.0 + hessian_cost(replay, chosen))
        else:
            bar = bars.add("Running backward", images)
            found = sensitivity(
                replay,
                batches,
                outcome,
                question.seed,
                probes=how.probes,
                value=value,
                progress=lambda n: bars.advance(bar, n),
            )
            places = [network.units.index(unit) for unit in chosen]
            first, second = _fisher(found.shifts[:, places].double().numpy(), outcome)
            forward_passes = found.forward_passes + images
    forward_passes += value.forward_passes
    if how.order == 1 and (how.absolute or not is_differentiable(outcome)):
        change = np.abs(first) if is_differentiable(outcome) else np.sqrt(second)
        return from_scores(chosen, change.mean(axis=1), samples=images, forward_passes=forward_passes, **about)
    effects = first + second if how.order == 2 else first
    return from_samples(
        chosen,
        effects.astype(np.float32),
        keep_images=question.per_image,
        estimand="single",
        forward_passes=forward_passes,
        approximate=True,
        **about,
    )


def _fisher(shifts: Floats, outcome: Outcome) -> tuple[Floats, Floats]:
    """First- and second-order terms (units, images) of the shifts of all probes (probes, units, images)."""
    if is_differentiable(outcome):
        return shifts[0], 0.5 * shifts[0] ** 2
    assert isinstance(outcome, LogitShift)
    assert outcome.scale is not None
    return np.zeros_like(shifts[0]), (shifts**2).mean(axis=0) / outcome.scale


def _affordable(
    replay: Replay, batches: Sequence[Batch], question: Question, how: Expansion, chosen: Sequence[Unit]
) -> Sequence[Batch]:
    """As many of the first images as the budget pays for."""
    if question.forward_passes is None:
        return batches
    probes = 1 if is_differentiable(as_outcome(question.outcome)) else how.probes
    each = 2.0 + 2.0 * probes if how.curvature == "fisher" else 1.0 + hessian_cost(replay, chosen)
    measuring = relative_cost(replay.network, suffixes(replay, chosen)) * len(chosen)
    each += fit_cost(checked(question.intervention), measuring)
    first = cut_images(batches, int(question.forward_passes // each))[0]
    if sum(map(len, first)) < 2:
        raise InputError(
            f"{question.forward_passes:g} forward passes do not pay for gradients on 2 images: "
            f"give at least {2 * each:.0f}"
        )
    return first


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
    if how.curvature == "fisher" and not is_differentiable(outcome) and not isinstance(outcome, LogitShift):
        raise InputError(
            f"outcome {outcome.name} has no gradient that says what removal does: choose logit-shift, cross-entropy, "
            "margin or ClassLogit; for a smooth function of your own, Expansion(curvature='hessian')"
        )
