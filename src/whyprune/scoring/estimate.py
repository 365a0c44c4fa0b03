"""`estimate`: effects or scores of every unit, by a scorer or its name."""

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

from whyprune.effects.effects import Effects
from whyprune.effects.outcomes import Outcome
from whyprune.errors import InputError
from whyprune.scoring.contract import Question, Scorer
from whyprune.scoring.registry import SCORERS
from whyprune.structure.entry import entered
from whyprune.structure.network import Network
from whyprune.structure.state import State
from whyprune.structure.units import Unit


def estimate(
    start: Network | State,
    data: Iterable[Any],
    *,
    method: str | Scorer = "exact",
    outcome: Outcome | str | None = None,
    intervention: str | None = None,
    units: Sequence[Unit | str] | None = None,
    per_image: bool = False,
    forward_passes: float | None = None,
    rate: float | None = None,
    reduction: str | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Effects:
    """Estimates what removing each unit does to the outcome.

    Args:
        start: a traced model, or a state of it: effects are then conditional on what is gone.
        data: batches (tensors, tuples or dicts); labels only if the outcome needs them.
        method: a scorer or its name: an estimator, of which `exact` is the measure of all others; `curves` (response
            curves per group); or a criterion: `random`, `magnitude-l1`, `magnitude-l2`, `taylor`. All: `SCORERS`.
        outcome: what harm is: `logit-shift` (default for logits), `output-shift` (default for all other outputs),
            `cross-entropy`, `margin`, `prediction-change`, or a function.
        intervention: `zero`, `mean`, `optimal`, `closed-form`, `resample` or `carried`; None for the scorer's own.
        units: which units (default: all that are there).
        per_image: keep individual effects.
        forward_passes: most dense forward passes of one image to spend, all in all; None for the scorer's default.
        rate: for `context` effects: with which probability every other unit is gone.
        reduction: of a criterion, over the coupled slices of a unit: `mean`, `sum` or `max`; None for its own.
        seed: of everything drawn.
        progress: show progress bars.

    Raises:
        InputError: an unknown name, missing labels, too few images, a budget that does not suffice, or something asked
            for that the scorer cannot honour.
        MissingDependencyError: the scorer needs an optional library.
    """
    ask = SCORERS(method) if isinstance(method, str) else method
    if not callable(ask) or isinstance(ask, type):
        raise InputError(f"method={method!r:.60} is no scorer: give one or its name, such as 'exact'")
    drawn: object = seed
    if isinstance(drawn, bool) or not isinstance(drawn, Integral) or int(drawn) < 0:
        raise InputError(f"seed={drawn!r:.60}: give a whole number from 0")
    if isinstance(units, str) or not (units is None or isinstance(units, Iterable)):
        raise InputError(f"units={units!r:.60}: give a list of units of network.units or of their names")
    state = State.of(start)
    names = None if units is None else tuple(u if isinstance(u, str) else u.name for u in units)
    question = Question(
        outcome, intervention, names, per_image, forward_passes, rate, reduction=reduction, seed=seed, progress=progress
    )
    return ask(state, list(entered(data, state.network)), question)
