"""Magnitude: the norm of a unit's weights.

L1: Li et al., ICLR 2017; over all coupled layers: DepGraph, Fang et al., CVPR 2023.

Formula: mean over the coupled slices of matrix weights (producers' filters and readers' input slices) of
|w|_p^p. [P] the norm; [C] the mean over a group's layers; batch-norm entries and biases are left out (ours).
"""

from collections.abc import Sequence

from whyprune.criteria.answer import scored
from whyprune.criteria.coupled import along_axes, reduced
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.errors import InputError
from whyprune.interventions.suffix import chosen_units
from whyprune.scoring.contract import NamedScorer, Question, ScorerFacts
from whyprune.structure.network import Network
from whyprune.structure.state import State
from whyprune.structure.units import Unit


def magnitude(
    start: Network | State,
    *,
    order: int = 2,
    units: Sequence[Unit | str] | None = None,
    reduction: str | None = None,
) -> Effects:
    """|w|_p^p of every unit, reduced over its coupled weights, as they are in the module so far.

    Args:
        start: a traced model, or a state of it.
        order: p, 1 or 2.
        units: which units (default: all that are there).
        reduction: over coupled weights: `mean` (default), `sum` or `max`.

    Raises:
        InputError: another order or reduction, or an unknown unit.
    """
    if order not in (1, 2):
        raise InputError(f"magnitude of order {order}: choose 1 or 2")
    state = State.of(start)
    chosen = chosen_units(state, units)
    powers = along_axes(state.model.named_parameters(), lambda slices: slices.abs().pow(order).sum(dim=1))
    scores = reduced(state, chosen, powers, reduction)
    return scored(state, chosen, scores, method=f"magnitude-l{order}", forward_passes=0.0)


def _scorer(order: int, paper: str) -> NamedScorer:
    """Magnitude of one order as a scorer."""

    def score(state: State, _batches: Sequence[Batch], question: Question) -> Effects:
        return magnitude(state, order=order, units=question.units, reduction=question.reduction)

    facts = ScorerFacts(
        kind="criterion",
        summary=f"L{order} norm of the coupled weights",
        estimand="score",
        cost="none to speak of",
        guarantee="none; blind to data",
        paper=paper,
        images=False,
        labels="no",
        reduces=True,
        most_images=0,
        scaling="dependent",
        duplicates="alike",
    )
    return NamedScorer(f"magnitude-l{order}", facts, score)


magnitude_l1 = _scorer(1, "Li et al., ICLR 2017; Fang et al., DepGraph, CVPR 2023")
magnitude_l2 = _scorer(2, "Fang et al., DepGraph, CVPR 2023")
