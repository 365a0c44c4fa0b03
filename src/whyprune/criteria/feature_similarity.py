"""Feature similarity: of the two average feature maps of a group that are most alike, one goes.

Xue et al., AFPruner, Applied Intelligence 2024. [A] similarity of average feature maps; of similar filters one is
kept. The formula is ours [I]: maps averaged over images as readers see them, cosine similarity, redundancy of a unit =
its mean similarity to all others; of the most similar two that are left the one with the larger redundancy goes, and of
equals the one with the smaller L1 norm. The score of a unit is 1 - similarity where it goes. A map of zeros is
like every other one.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from whyprune.criteria.answer import scored_together
from whyprune.criteria.feature_maps import affordable
from whyprune.criteria.magnitude import magnitude
from whyprune.criteria.redundancy import Floats, by_group, drop_scores, group_distances, mean_maps
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.scoring.contract import Question, scorer
from whyprune.structure.network import Network
from whyprune.structure.state import State
from whyprune.structure.units import Unit


def feature_similarity(
    start: Network | State,
    data: Iterable[Any],
    *,
    units: Sequence[Unit | str] | None = None,
    reduction: str | None = None,
) -> Effects:
    """1 - cosine similarity of every unit's average map to the closest that is left when it goes.

    Args:
        start: a traced model, or a state of it.
        data: batches; labels are not used.
        units: which units are scored (default: all that are there); all units of a group take part.
        reduction: over the tensors in which a unit is read: `mean` (default), `sum` or `max` of their distances.

    Raises:
        InputError: there is no data, maps of several sizes, another reduction, or an unknown unit.
    """
    state = State.of(start)
    everything, norms = list(state.units), magnitude(state, order=1).mean
    maps, images = mean_maps(state, data)
    scores = np.zeros(len(everything))
    for places in by_group(everything).values():
        distances = group_distances(state, [everything[k] for k in places], maps, cosine_distances, reduction)
        apart = distances.sum(axis=1) / max(len(places) - 1, 1)  # 1 - redundancy
        worth = apart + 1e-9 * norms[places] / max(float(norms[places].max()), 1e-300)
        scores[places] = drop_scores(distances, worth)
    return scored_together(
        state,
        units,
        scores,
        method="feature-similarity",
        samples=images,
        forward_passes=float(images),
        across_groups=True,
    )


def cosine_distances(vectors: Floats) -> Floats:
    """1 - cosine similarity (N, N) of (N, D), exactly 0 on the diagonal; a vector of zeros is at 0 from every other."""
    norms = np.linalg.norm(vectors, axis=1)
    unit = vectors / np.where(norms > 0, norms, 1.0)[:, None]
    found: Floats = np.clip(1.0 - unit @ unit.T, 0.0, 2.0)
    found[norms == 0] = 0.0
    found[:, norms == 0] = 0.0
    np.fill_diagonal(found, 0.0)
    return found


@scorer(
    "feature-similarity",
    kind="criterion",
    summary="how alike a unit's average feature map is to the closest one that is left (AFPruner)",
    estimand="score",
    cost="one forward pass per image",
    guarantee="none",
    paper="Xue et al., Applied Intelligence 2024",
    labels="no",
    reduces=True,
    most_images=500,
    scaling="invariant",
    duplicates="one-first",
)
def feature_similarity_scores(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Similarity of average maps on the images given."""
    chosen = affordable(batches, question)
    return feature_similarity(state, chosen, units=question.units, reduction=question.reduction)
