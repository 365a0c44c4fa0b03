"""`estimate`: effects or scores of every unit, by the name of a method."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from whyprune.causal.response.curves import response_curves
from whyprune.criteria import magnitude, random_scores, taylor
from whyprune.data.batches import Batch, as_batches, cut_images
from whyprune.effects.effects import Effects
from whyprune.effects.outcomes import Outcome
from whyprune.errors import InputError
from whyprune.scoring.contract import Question
from whyprune.scoring.registry import ESTIMATORS, estimator
from whyprune.structure.network import Network
from whyprune.structure.units import Unit

ScoreFunction = Callable[[Network, Iterable[Any], Outcome | str | None, int], Effects]

CRITERIA: dict[str, ScoreFunction] = {
    "random": lambda network, _data, _outcome, seed: random_scores(network, seed=seed),
    "magnitude-l1": lambda network, _data, _outcome, _seed: magnitude(network, order=1),
    "magnitude-l2": lambda network, _data, _outcome, _seed: magnitude(network, order=2),
    "taylor": lambda network, data, outcome, seed: taylor(network, data, outcome=outcome, seed=seed),
}
CURVES = "curves"
METHODS = (CURVES, *ESTIMATORS, *CRITERIA)


def estimate(
    network: Network,
    data: Iterable[Any],
    *,
    method: str = "exact",
    outcome: Outcome | str | None = None,
    intervention: str = "zero",
    units: Sequence[Unit | str] | None = None,
    per_image: bool = False,
    forward_passes: float | None = None,
    rate: float | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Effects:
    """Estimates what removing each unit does to the outcome.

    Args:
        network: a traced model.
        data: batches (tensors, tuples or dicts); labels only if the outcome needs them.
        method: an estimator, of which `exact` is the measure of all others; `curves` (exact effects and response
            curves per group); or a criterion: `random`, `magnitude-l1`, `magnitude-l2`, `taylor`. All: `METHODS`.
        outcome: what harm is: `logit-shift` (default), `cross-entropy`, `margin`, `prediction-change`, or a
            function.
        intervention: `zero`, `mean`, `optimal`, `closed-form`, `resample` or `carried`; criteria have none.
        units: which units (default all); criteria judge all.
        per_image: keep individual effects, where the estimator has them.
        forward_passes: most dense forward passes of one image to spend, all in all; None for the estimator's default.
        rate: for `context` effects: with which probability every other unit is gone.
        seed: of everything drawn.
        progress: show progress bars.

    Raises:
        InputError: an unknown name, missing labels, too few images, a budget that does not suffice.
        MissingDependencyError: the method needs an optional library.
    """
    if method in CRITERIA:
        return CRITERIA[method](network, data, outcome, seed)
    if method not in METHODS:
        raise InputError(f"no method named {method!r}: choose from {', '.join(METHODS)}")
    batches = list(as_batches(data, network.positional))
    names = None if units is None else tuple(u if isinstance(u, str) else u.name for u in units)
    question = Question(outcome, intervention, names, per_image, forward_passes, rate, seed, progress)
    effects = estimator("exact" if method == CURVES else method)(network, batches, question)
    if method != CURVES:
        return effects
    fit, measure = split_images(batches)
    curves = response_curves(network, fit, measure, outcome=outcome, seed=seed, progress=progress)
    return replace(effects, curves=curves, method=CURVES)


def split_images(batches: Sequence[Batch], share: float = 1 / 3, most: int = 128) -> tuple[list[Batch], list[Batch]]:
    """(the rest, the first images): the first go to measuring, a third of all but at most `most`.

    Raises:
        InputError: fewer than six images.
    """
    total = sum(len(b) for b in batches)
    if total < 6:
        raise InputError(f"{total} images of data: at least 6 are needed to fit and to measure on different ones")
    measured = max(2, min(most, int(total * share)))
    first, rest = cut_images(batches, measured)
    return rest, first
