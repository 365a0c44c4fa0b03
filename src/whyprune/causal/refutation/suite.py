"""`refute`: every attempt that makes sense for a plan, one after the other."""

from collections.abc import Callable, Iterable
from typing import Any

from whyprune.causal.refutation.controls import dead_unit, duplicates
from whyprune.causal.refutation.stability import (
    intervention_values,
    placebo,
    randomised_weights,
    shifted_images,
    split_half,
)
from whyprune.causal.refutation.subject import Judge, Subject, sampled
from whyprune.data.batches import cut_images
from whyprune.effects.outcomes import Outcome
from whyprune.errors import InputError, WhypruneError
from whyprune.progress import Progress
from whyprune.results import JointEffect, Refutation
from whyprune.structure.entry import entered
from whyprune.structure.network import Network
from whyprune.structure.state import State

UNITS, IMAGES, FEWEST = 32, 64, 8
ATTEMPTS: tuple[Callable[[Subject], Refutation], ...] = (
    dead_unit,
    duplicates,
    placebo,
    split_half,
    intervention_values,
    shifted_images,
    randomised_weights,
)


def refute(
    start: Network | State,
    data: Iterable[Any],
    judge: Judge,
    *,
    outcome: Outcome | str | None = None,
    joint: JointEffect | None = None,
    units: int = UNITS,
    images: int = IMAGES,
    seed: int = 0,
    progress: bool = False,
) -> tuple[Refutation, ...]:
    """Tries to refute how units were judged. None of these proves anything right; each can show it wrong.

    Truth comes from interventions, never from the estimator's own assumptions.

    Args:
        start: a traced model, or a state of it.
        data: images that the judgement was not made from, with labels if the outcome needs them.
        judge: (state, batches, unit names) -> effects, in the way that units were judged for the plan.
        outcome: what harm is (default `LogitShift`, of other outputs `OutputShift`).
        joint: predicted and measured joint effect of the plan, if there is one.
        units: about how many units to judge again, spread over the groups.
        images: how many images to use.
        seed: of everything drawn.
        progress: show a progress bar.

    Raises:
        InputError: fewer than eight images, or no group with two units.
    """
    state = State.of(start)
    batches = cut_images(list(entered(data, state.network)), images)[0]
    if sum(map(len, batches)) < FEWEST:
        raise InputError(f"{sum(map(len, batches))} images to refute with: give at least {FEWEST}")
    chosen = sampled(state, units, seed)
    if not chosen:
        raise InputError("no group has two units: there is no order to refute")
    judged = judge(state, batches, [u.name for u in chosen])
    subject = Subject(state, judge, tuple(batches), outcome, chosen, judged, seed)
    found: list[Refutation] = []
    with Progress(progress) as bars:
        bar = bars.add("Trying to refute the effects", len(ATTEMPTS))
        for attempt in ATTEMPTS:
            found.append(_tried(attempt, subject))
            bars.advance(bar)
    return (*found, *([] if joint is None else [prediction(joint)]))


def prediction(joint: JointEffect) -> Refutation:
    """The measured joint effect, on images kept apart, is not larger than predicted."""
    name = "predicted joint effect"
    if joint.predicted is None:
        return Refutation(name=name, passed=None, sentence="The method predicts no joint effect.")
    passed = joint.interval[0] <= joint.predicted
    said = "not above" if passed else "above"
    return Refutation(
        name=name,
        passed=bool(passed),
        value=joint.measured,
        limit=joint.predicted,
        sentence=f"The measured joint effect ({joint.measured:.3g}, 95% from {joint.interval[0]:.3g}) is {said} the "
        f"predicted {joint.predicted:.3g}.",
    )


def _tried(attempt: Callable[[Subject], Refutation], subject: Subject) -> Refutation:
    """An attempt that cannot be made on this network says so; it neither passes nor fails."""
    try:
        return attempt(subject)
    except WhypruneError as error:
        return Refutation(name=attempt.__name__.replace("_", " "), passed=None, sentence=f"Not tried: {error}")
