"""HRank: the mean rank of a unit's feature maps.

Lin et al., CVPR 2020. [P] the rank of the H x W matrix of a map, averaged over images, small meaning little
information; [C] after the activation, over a few hundred images. Maps of one place have rank 0 or 1. [I] Maps of more
than two dimensions are read as matrices of their last dimension by all others.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from whyprune.criteria.feature_maps import affordable, as_matrices, scored_maps
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.scoring.contract import Question, scorer
from whyprune.structure.network import Network
from whyprune.structure.state import State
from whyprune.structure.units import Unit


def hrank(
    start: Network | State,
    data: Iterable[Any],
    *,
    units: Sequence[Unit | str] | None = None,
    reduction: str | None = None,
) -> Effects:
    """The mean rank of every unit's feature maps, as its readers see them.

    Args:
        start: a traced model, or a state of it.
        data: batches; labels are not used.
        units: which units (default: all that are there).
        reduction: over the tensors in which a unit is read: `mean` (default), `sum` or `max`.

    Raises:
        InputError: there is no data, another reduction, or an unknown unit.
    """
    return scored_maps(start, data, units, _ranks, reduction, method="hrank")


def _ranks(maps: Tensor) -> Tensor:
    ranks: Tensor = torch.linalg.matrix_rank(as_matrices(maps).float())
    return ranks


@scorer(
    "hrank",
    kind="criterion",
    summary="mean rank of the feature maps",
    estimand="score",
    cost="one forward pass and one singular value decomposition per map and image",
    guarantee="none",
    paper="Lin et al., CVPR 2020",
    labels="no",
    reduces=True,
    most_images=256,
    scaling="invariant",
    duplicates="alike",
)
def hrank_scores(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Mean ranks on the images given."""
    return hrank(state, affordable(batches, question), units=question.units, reduction=question.reduction)
