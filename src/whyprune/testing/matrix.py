"""The planted matrix: every scorer on every planted case, right, wrong, or without a claim.

What a scorer claims depends on its estimand, and the truth of each estimand is known here, because all sets of
units are run on all images (`enumerated`):

| case | single | context | shapley |
|---|---|---|---|
| duplicates | equal, above 0 | equal, above 0 | equal |
| cancelling pair | each above 0: alone it hurts | each above 0 | as enumerated, of either sign |
| dead unit | 0 | 0 | 0 |
| bystander: correlated, no effect | 0 | 0 | 0 |
| unit of one class | individual effects are 0 on the other classes' images | no claim | no claim |
| preemption: a backup acts when the first is gone | 0 for both: blind | above 0 | half of the joint effect |

A score claims that nothing scores less than the dead unit, and no more; not even that if no image was looked at.

A scorer with intervals claims that they hold the truth of its estimand for all units of the case. `RIGHT`: they do,
and where the truth is not 0 they exclude 0. `WRONG`: an interval twice as wide as stated, about four standard errors to
each side, does not hold it. `NO_CLAIM`: no interval, or one that holds the truth and 0 too although the truth is
something else. A result that calls itself `approximate` does not claim that its intervals hold the truth: where they do
not, it is `OFF`, which is no broken promise, and worth knowing.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from whyprune.effects.effects import Effects
from whyprune.interventions.worlds import Worlds
from whyprune.scoring.contract import NamedScorer, Question, Scorer
from whyprune.structure.state import State
from whyprune.testing import planted
from whyprune.testing.enumerated import EnumeratedEffects, enumerated
from whyprune.testing.planted import (
    BACKUP,
    BYSTANDER,
    COPY,
    DEAD,
    MINUS,
    ONE_CLASS,
    OTHER_COPY,
    PLUS,
    PRIMARY,
    SPECIAL,
    Case,
)

RIGHT, WRONG, NO_CLAIM, OFF = "right", "wrong", "does not claim", "approximate, and off"
ROUNDING = 1e-4
ZERO = 1e-5
"""Truth below this is rounding."""
CASES: dict[str, tuple[int, ...]] = {
    "duplicates": (COPY, OTHER_COPY),
    "cancelling pair": (PLUS, MINUS),
    "dead unit": (DEAD,),
    "bystander": (BYSTANDER,),
    "one-class unit": (ONE_CLASS,),
    "preemption": (PRIMARY, BACKUP),
}
"""Case -> its units."""


def planted_outcomes(scorer: Scorer, *, question: Question | None = None) -> dict[str, str]:
    """Case -> `RIGHT`, `WRONG`, `NO_CLAIM` or `OFF`.

    Args:
        scorer: the scorer.
        question: what to ask; default: everything by default, with individual effects where there are any.
    """
    question = question or Question(per_image=not isinstance(scorer, NamedScorer) or scorer.facts.individual)
    first, second = ordinary(), planted.preemption()
    found = {
        case: scorer(State.of(c.network), [c.batch], question) for case, c in (("", first), ("preemption", second))
    }
    return {name: _judge(name, found.get(name, found[""])) for name in CASES}


@cache
def ordinary() -> Case:
    """The planted network with its second layer kept whole: nine units."""
    whole = planted.case(1)
    return Case(whole.network.ignoring(["left"]), whole.images, whole.labels)


@cache
def truth(preemption: bool) -> EnumeratedEffects:
    """All there is to know of one of the two networks, for the default outcome and the value zero."""
    case = planted.preemption() if preemption else ordinary()
    return enumerated(Worlds(case.network, [case.batch]))


def _judge(name: str, found: Effects) -> str:
    if name == "one-class unit":
        return _one_class(found)
    if found.estimand == "score":
        return _ranked(name, found)
    table = truth(name == "preemption")
    estimands: dict[str, Callable[[], NDArray[np.float64]]] = {
        "single": table.single,
        "conditional": table.single,
        "context": lambda: table.context(found.rate),
        "shapley": table.shapley,
    }
    if found.estimand not in estimands:
        return NO_CLAIM
    return _held(found, estimands[found.estimand](), CASES[name])


def _held(found: Effects, expected: NDArray[np.float64], units: tuple[int, ...]) -> str:
    """Whether the intervals of the case's units hold what is true."""
    chosen, (low, high) = list(units), found.interval
    if not np.isfinite([low[chosen], high[chosen]]).all():
        return NO_CLAIM
    mean, expected = found.mean[chosen], expected[chosen]
    below, above = mean - 2 * (mean - low[chosen]) - ROUNDING, mean + 2 * (high[chosen] - mean) + ROUNDING
    if ((expected < below) | (expected > above)).any():
        return OFF if found.approximate else WRONG
    moving = np.abs(expected) > ZERO
    open_ = moving & (low[chosen] <= 0) & (high[chosen] >= 0)
    return NO_CLAIM if open_.any() else RIGHT


def _ranked(name: str, found: Effects) -> str:
    """A score claims of the dead unit that nothing is less."""
    if name != "dead unit" or not found.samples:
        return NO_CLAIM
    return RIGHT if found.mean[DEAD] <= found.mean.min() + ROUNDING else WRONG


def _one_class(found: Effects) -> str:
    """Individual effects claim to be 0 where the unit sees nothing, and not to be where it does."""
    if found.per_image is None or found.estimand == "score" or found.approximate:
        return NO_CLAIM
    labels = ordinary().labels.numpy()
    if found.per_image.shape[1] != len(labels):
        return NO_CLAIM
    effects = np.abs(found.per_image[ONE_CLASS])
    others, own = effects[labels != SPECIAL].max(), effects[labels == SPECIAL].mean()
    return RIGHT if others <= ZERO < own else WRONG
