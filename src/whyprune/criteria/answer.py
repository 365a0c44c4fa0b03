"""From scores to what a scorer answers: `Effects` that say which units are gone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whyprune.effects.effects import Effects, from_scores
from whyprune.interventions.suffix import chosen_units
from whyprune.structure.state import State
from whyprune.structure.units import Unit

Floats = NDArray[np.float64]


def scored(state: State, units: Sequence[Unit], scores: Sequence[float] | Floats, **about: Any) -> Effects:
    """Scores of these units of a state; `about` as for `from_scores`."""
    return from_scores(units, scores, given=tuple(unit.name for unit in state.removed), **about)


def scored_together(state: State, units: Sequence[Unit | str] | None, scores: Floats, **about: Any) -> Effects:
    """The scores that are asked for, of a criterion that scores all units of a state together.

    Args:
        state: the network as it stands.
        units: which are asked for; None for all.
        scores: of all units of the state, in its order.
        about: as for `from_scores`.

    Raises:
        InputError: an unknown unit.
    """
    chosen = chosen_units(state, units)
    place = {unit.label: k for k, unit in enumerate(state.units)}
    return scored(state, chosen, scores[[place[unit.label] for unit in chosen]], **about)
