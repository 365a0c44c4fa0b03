"""FPGM: how far a unit's filters are from all others of their layer; the ones nearest to the geometric median go first.

He et al., CVPR 2019. [P] sum over j of |F_i - F_j|_2 within a layer, small meaning replaceable; [C] plain L2
distances. [I] Input slices of the layers that read a unit are scored in the same way and reduced with the filters, as
DepGraph does for norms; the paper scores filters alone.
"""

from collections.abc import Sequence

from whyprune.criteria.answer import scored
from whyprune.criteria.coupled import along_axes, distances, reduced
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.interventions.suffix import chosen_units
from whyprune.scoring.contract import Question, scorer
from whyprune.structure.network import Network
from whyprune.structure.state import State
from whyprune.structure.units import Unit


def geometric_median(
    start: Network | State, *, units: Sequence[Unit | str] | None = None, reduction: str | None = None
) -> Effects:
    """Summed distances to all other slices of the same weight, reduced over a unit's coupled weights.

    Args:
        start: a traced model, or a state of it.
        units: which units (default: all that are there).
        reduction: over coupled weights: `mean` (default), `sum` or `max`.

    Raises:
        InputError: another reduction, or an unknown unit.
    """
    state = State.of(start)
    chosen = chosen_units(state, units)
    sums = along_axes(state.model.named_parameters(), lambda slices: distances(slices).sum(dim=1))
    scores = reduced(state, chosen, sums, reduction)
    return scored(state, chosen, scores, method="geometric-median", forward_passes=0.0)


@scorer(
    "geometric-median",
    kind="criterion",
    summary="distance of the coupled weights to all others of their layer (FPGM)",
    estimand="score",
    cost="none to speak of",
    guarantee="none; blind to data",
    paper="He et al., CVPR 2019",
    images=False,
    labels="no",
    reduces=True,
    most_images=0,
    scaling="dependent",
    duplicates="alike",
)
def geometric_median_scores(state: State, _batches: Sequence[Batch], question: Question) -> Effects:
    """Summed distances to all other slices of the same weight."""
    return geometric_median(state, units=question.units, reduction=question.reduction)
