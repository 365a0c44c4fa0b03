"""Random scores: the baseline that every criterion must beat at the same budget, repair and recovery."""

from collections.abc import Sequence

import numpy as np

from whyprune.criteria.answer import scored
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.interventions.suffix import chosen_units
from whyprune.scoring.contract import Question, scorer
from whyprune.structure.network import Network
from whyprune.structure.state import State
from whyprune.structure.units import Unit


def random_scores(start: Network | State, *, seed: int = 0, units: Sequence[Unit | str] | None = None) -> Effects:
    """Uniform random scores in [0, 1); a unit's number depends on the seed alone, not on what is gone.

    Args:
        start: a traced model, or a state of it.
        seed: of the draw.
        units: which units (default: all that are there).

    Raises:
        InputError: an unknown unit.
    """
    state = State.of(start)
    drawn = np.random.default_rng(seed).random(len(state.network.units))
    chosen = chosen_units(state, units)
    place = {unit.label: k for k, unit in enumerate(state.network.units)}
    scores = [drawn[place[unit.label]] for unit in chosen]
    return scored(state, chosen, scores, method="random", forward_passes=0.0)


@scorer(
    "random",
    kind="criterion",
    summary="uniform random numbers",
    estimand="score",
    cost="none",
    guarantee="none; the baseline that every method must beat",
    images=False,
    labels="no",
    most_images=0,
    scaling="invariant",
    drawn=True,
)
def random(state: State, _batches: Sequence[Batch], question: Question) -> Effects:
    """Uniform random scores by the question's seed."""
    return random_scores(state, seed=question.seed, units=question.units)
