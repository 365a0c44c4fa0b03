"""Filter similarity: of the two filters of a group that are most alike, channel by channel, one goes.

Geng & Niu, FSABP, Machine Learning 2022. [A] a similarity coefficient per filter from the weight matrices, channel by
channel, a small one meaning similar. The formula is ours [I], since the paper's could not be had: the distance of two
filters is that of `scoring/filters.py`, in [0, 1]; the coefficient of a filter is the distance at which it goes, when
of the closest two that are left the one of smaller norm goes. The paper's backward order over layers is a schedule,
and no part of the score.
"""

from collections.abc import Sequence

import numpy as np

from whyprune.criteria.answer import scored_together
from whyprune.criteria.coupled import checked
from whyprune.criteria.magnitude import magnitude
from whyprune.criteria.redundancy import ALONG, by_group, drop_scores
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.scoring.contract import Question, scorer
from whyprune.scoring.filters import filter_distances, filters_of
from whyprune.structure.network import Network
from whyprune.structure.state import State
from whyprune.structure.units import Unit


def filter_similarity(
    start: Network | State, *, units: Sequence[Unit | str] | None = None, reduction: str | None = None
) -> Effects:
    """The similarity coefficient of every unit, in [0, 1]; copies are at 0.

    Args:
        start: a traced model, or a state of it.
        units: which units are scored (default: all that are there); all units of a group take part.
        reduction: over the layers that write a unit: `mean` (default), `sum` or `max` of their distances.

    Raises:
        InputError: another reduction, or an unknown unit.
    """
    state = State.of(start)
    everything, norms = list(state.units), magnitude(state, order=1).mean
    along = ALONG[checked(reduction)]
    filters, scores = filters_of(state), np.zeros(len(state.units))
    for places in by_group(everything).values():
        own = [everything[k] for k in places]
        scores[places] = drop_scores(filter_distances(own, filters, along), norms[places])
    return scored_together(
        state,
        units,
        scores,
        method="filter-similarity",
        forward_passes=0.0,
        across_groups=True,
    )


@scorer(
    "filter-similarity",
    kind="criterion",
    summary="how alike a filter is to the closest one that is left, channel by channel (FSABP)",
    estimand="score",
    cost="none to speak of",
    guarantee="none; blind to data",
    paper="Geng & Niu, Machine Learning 2022",
    images=False,
    labels="no",
    reduces=True,
    causal="causal-filter-similarity",
    most_images=0,
    scaling="dependent",
    duplicates="one-first",
)
def filter_similarity_scores(state: State, _batches: Sequence[Batch], question: Question) -> Effects:
    """Similarity coefficients of every unit."""
    return filter_similarity(state, units=question.units, reduction=question.reduction)
