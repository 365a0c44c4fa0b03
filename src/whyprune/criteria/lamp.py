"""LAMP: a unit's squared norm as a share of what its group still holds when all smaller ones are gone.

Lee et al., ICLR 2021. [P] for single weights: w_u^2 / sum of w_v^2 over all v of the layer with w_v^2 >= w_u^2; the
scores of all layers are ranked together, and the largest of each is 1, so that no layer vanishes. [C] For units (as in
Torch-Pruning): the squared norm of the coupled weights takes the place of w^2, and a group that of the layer.
"""

from collections.abc import Sequence

import numpy as np

from whyprune.criteria.answer import scored_together
from whyprune.criteria.magnitude import magnitude
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.scoring.contract import Question, scorer
from whyprune.structure.network import Network
from whyprune.structure.state import State
from whyprune.structure.units import Unit


def lamp(start: Network | State, *, units: Sequence[Unit | str] | None = None, reduction: str | None = None) -> Effects:
    """LAMP scores in (0, 1], on one scale over all groups; units of equal norm get equal scores.

    Args:
        start: a traced model, or a state of it.
        units: which units are scored (default: all that are there); all units of a group count in the sum.
        reduction: over coupled weights: `mean` (default), `sum` or `max`.

    Raises:
        InputError: another reduction, or an unknown unit.
    """
    state = State.of(start)
    squares = magnitude(state, reduction=reduction)
    groups, found = np.array(squares.groups), np.zeros(len(squares.units))
    for name in dict.fromkeys(squares.groups):
        own = np.flatnonzero(groups == name)
        values = squares.mean[own]
        larger = (values[None, :] >= values[:, None]) @ values
        found[own] = np.divide(values, larger, out=np.zeros_like(values), where=larger > 0)
    return scored_together(state, units, found, method="lamp", forward_passes=0.0, across_groups=True)


@scorer(
    "lamp",
    kind="criterion",
    summary="squared norm as a share of all that are not smaller in the group",
    estimand="score",
    cost="none to speak of",
    guarantee="none; blind to data",
    paper="Lee et al., ICLR 2021",
    images=False,
    labels="no",
    reduces=True,
    most_images=0,
    scaling="dependent",
    duplicates="alike",
)
def lamp_scores(state: State, _batches: Sequence[Batch], question: Question) -> Effects:
    """LAMP scores of every unit."""
    return lamp(state, units=question.units, reduction=question.reduction)
