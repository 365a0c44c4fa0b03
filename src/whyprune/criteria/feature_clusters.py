"""Feature clusters: hierarchical clustering of a group's feature maps; one unit of a cluster stays.

Wu et al., Applied Sciences 2022. [A] hierarchical clustering of feature maps; the silhouette coefficient chooses how
many clusters, and so how many filters, there are. The rest is ours [I]: maps of a few images, pooled to 4 x 4, put side
by side and scaled to length 1; Ward's linkage; which numbers of clusters are tried (see `scoring/clusters`). Of two
clusters that merge the representative closer to their common mean stays, of two that are as close the one of larger
maps: the order of channels decides between copies only. A unit's score is the height of the merge at which it does not
stay. Units whose maps are zero go first, and are no clusters.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn.functional import adaptive_avg_pool2d

from whyprune.criteria.answer import scored_together
from whyprune.criteria.feature_maps import affordable, as_matrices, check_images, maps_of, seen, unit_vectors
from whyprune.criteria.redundancy import Floats, by_group
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.scoring.clusters import clustered
from whyprune.scoring.contract import Question, scorer
from whyprune.structure.network import Network
from whyprune.structure.state import State
from whyprune.structure.units import Unit

POOLED = 4
"""Maps are pooled to 4 x 4 places."""


def feature_clusters(
    start: Network | State, data: Iterable[Any], *, units: Sequence[Unit | str] | None = None
) -> Effects:
    """The height at which every unit merges into a cluster that another one stands for.

    Args:
        start: a traced model, or a state of it.
        data: batches; labels are not used.
        units: which units are scored (default: all that are there); all units of a group take part.

    Returns:
        Scores, with the number of clusters that the silhouette chooses as `natural_widths`.

    Raises:
        InputError: there is no data, or an unknown unit.
    """
    state = State.of(start)
    everything = list(state.units)
    tables, images = _tables(state, data)
    scores, widths = np.zeros(len(everything)), {}
    for name, places in by_group(everything).items():
        vectors = _vectors(state, [everything[k] for k in places], tables)
        scores[places], widths[name] = clustered(vectors)
    return scored_together(
        state,
        units,
        scores,
        method="feature-clusters",
        samples=images,
        forward_passes=float(images),
        natural_widths=widths,
    )


def _tables(state: State, data: Iterable[Any]) -> tuple[dict[fx.Node, Tensor], int]:
    """Tensor in which units are read -> (channels, pooled places of all images), and the number of images."""
    parts: dict[fx.Node, list[Tensor]] = {node: [] for node in seen(state)}
    images = 0
    for count, maps in maps_of(state, data):
        for node, own in maps.items():
            matrices = as_matrices(own).double()
            size = (min(matrices.shape[2], POOLED), min(matrices.shape[3], POOLED))
            parts[node].append(adaptive_avg_pool2d(matrices, size).transpose(0, 1).flatten(1))
        images += count
    check_images(images)
    return {node: torch.cat(found, dim=1) for node, found in parts.items()}, images


def _vectors(state: State, units: Sequence[Unit], tables: dict[fx.Node, Tensor]) -> Floats:
    """(units, numbers): what every tensor holds of a unit, side by side."""
    found = unit_vectors(state, units, tables)
    return torch.cat(found, dim=1).numpy() if found else np.zeros((len(units), 1))


@scorer(
    "feature-clusters",
    kind="criterion",
    summary="the height at which a unit's feature maps merge into a cluster that another unit stands for",
    estimand="score",
    cost="one forward pass per image",
    guarantee="none",
    paper="Wu et al., Applied Sciences 2022",
    labels="no",
    natural_widths=True,
    most_images=128,
    scaling="invariant",
    duplicates="one-first",
    causal="causal-feature-clusters",
)
def feature_clusters_scores(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Merge heights on the images given."""
    return feature_clusters(state, affordable(batches, question), units=question.units)
