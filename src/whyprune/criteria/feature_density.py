"""Feature density: how many distinct average feature maps a group has at one radius, by DBSCAN.

Chang et al., ACP, Applied Intelligence 2022, first stage. [C] maps of 200 images averaged, DBSCAN with cosine
distance and min_samples = 5; the width of a layer is its clusters plus its noise points, and one epsilon serves all
layers. [C] Which filters stay is not said by the clusters: here those of largest L1 norm, one of the paper's options.
[I] The score of the n-th unit to go is the smallest epsilon at which the group's width is down by n, so that one
ranking over all groups is one epsilon for all layers. Where DBSCAN finds noise alone, no map is like another one: units
then go by their norm, the same share of every such group at a time. Widths at every epsilon come at once from the
minimum spanning tree of mutual reachability distances (Campello et al., PAKDD 2013), which is exact.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import minimum_spanning_tree

from whyprune.criteria.answer import scored_together
from whyprune.criteria.feature_maps import affordable
from whyprune.criteria.feature_similarity import cosine_distances
from whyprune.criteria.magnitude import magnitude
from whyprune.criteria.redundancy import Floats, by_group, group_distances, mean_maps
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.scoring.contract import Question, scorer
from whyprune.structure.network import Network
from whyprune.structure.state import State
from whyprune.structure.units import Unit

MIN_SAMPLES = 5
"""[C] The authors' code: identical channels make a cluster from five copies on."""
NEVER = 2.0
"""The largest cosine distance: units that no epsilon merges go last."""
TIE = 1e-9
"""Of units that one epsilon merges, the one of smaller norm goes first."""


def feature_density(
    start: Network | State,
    data: Iterable[Any],
    *,
    units: Sequence[Unit | str] | None = None,
    reduction: str | None = None,
    min_samples: int = MIN_SAMPLES,
) -> Effects:
    """The epsilon at which every unit goes.

    Args:
        start: a traced model, or a state of it.
        data: batches; labels are not used.
        units: which units are scored (default: all that are there); all units of a group take part.
        reduction: over the tensors in which a unit is read: `mean` (default), `sum` or `max` of their distances.
        min_samples: how many maps within epsilon, its own included, make one the core of a cluster.

    Raises:
        InputError: there is no data, maps of several sizes, another reduction, or an unknown unit.
    """
    state = State.of(start)
    everything, norms = list(state.units), magnitude(state, order=1).mean
    maps, images = mean_maps(state, data)
    scores = np.zeros(len(everything))
    for places in by_group(everything).values():
        distances = group_distances(state, [everything[k] for k in places], maps, cosine_distances, reduction)
        scores[places] = _scores(distances, norms[places], min_samples)
    return scored_together(
        state,
        units,
        scores,
        method="feature-density",
        samples=images,
        forward_passes=float(images),
        across_groups=True,
    )


def _scores(distances: Floats, norms: Floats, min_samples: int) -> Floats:
    """The epsilon at which every unit of a group goes; a map of zeros, which is like every other one, is no map."""
    silent = distances.sum(axis=1) == 0
    alive = np.flatnonzero(~silent) if not silent.all() else np.arange(len(distances))
    found = np.zeros(len(distances))
    order = np.argsort(norms[alive], kind="stable")
    share = np.arange(len(alive)) / len(alive)
    found[alive[order]] = epsilons(distances[np.ix_(alive, alive)], min_samples) + TIE * share
    return found


def epsilons(distances: Floats, min_samples: int = MIN_SAMPLES) -> Floats:
    """For n = 1, 2, ...: the smallest epsilon at which clusters and noise points are n fewer than points.

    Args:
        distances: (N, N).
        min_samples: as in DBSCAN.

    Returns:
        (N,), ascending; `NEVER` where no epsilon merges so many.
    """
    count = len(distances)
    found = np.full(count, NEVER)
    if count < min_samples:
        return found
    radii, changes = _events(distances, min_samples)
    merged = np.maximum.accumulate(count - (count + np.cumsum(changes)))
    for radius, gone in zip(radii[::-1], merged[::-1], strict=True):
        found[: int(gone)] = radius
    return found


def _events(distances: Floats, min_samples: int) -> tuple[Floats, NDArray[np.int64]]:
    """Radii, ascending, and by how much clusters plus noise change there.

    A point becomes a core at its core distance (a cluster more), is no noise from the radius at which a core reaches
    it (a noise point less), and two clusters become one along an edge of the tree.
    """
    core = np.sort(distances, axis=1)[:, min_samples - 1]
    reached = np.maximum(distances, core[None, :]).min(axis=1)
    mutual = np.maximum(distances, np.maximum(core[:, None], core[None, :]))
    known, ranks = np.unique(mutual, return_inverse=True)  # ranks: a distance of 0 would be no edge
    edges = minimum_spanning_tree(np.triu(ranks.reshape(mutual.shape) + 1, 1)).data
    tree = known[edges.astype(np.int64) - 1]
    radii = np.concatenate([core, reached, tree])
    steps = np.concatenate([np.ones(len(core)), -np.ones(len(reached)), -np.ones(len(tree))]).astype(np.int64)
    unique, inverse = np.unique(radii, return_inverse=True)
    return unique, np.bincount(inverse, weights=steps, minlength=len(unique)).astype(np.int64)


@scorer(
    "feature-density",
    kind="criterion",
    summary="the radius at which DBSCAN finds fewer distinct average feature maps than units (ACP, first stage)",
    estimand="score",
    cost="one forward pass per image",
    guarantee="none",
    paper="Chang et al., Applied Intelligence 2022",
    labels="no",
    reduces=True,
    most_images=200,
    scaling="dependent",
)
def feature_density_scores(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Radii on the images given."""
    chosen = affordable(batches, question)
    return feature_density(state, chosen, units=question.units, reduction=question.reduction)
