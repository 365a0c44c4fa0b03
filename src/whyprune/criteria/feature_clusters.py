"""Feature clusters: hierarchical clustering of a group's feature maps; one unit of a cluster stays.

Wu et al., Applied Sciences 2022. [A] hierarchical clustering of feature maps; the silhouette coefficient chooses how
many clusters, and so how many filters, there are. The rest is ours [I]: maps of a few images, pooled to 4 x 4, put side
by side and scaled to length 1; Ward's linkage; candidates for the number of clusters from a tenth of the units on; of
those whose silhouette is within 5% of the best the largest, since silhouettes favour few clusters. Of two clusters that
merge the representative closer to their common mean stays, of two that are as close the one of larger maps (the order
of channels decides nothing but between copies); a unit's score is the height of the merge at which it does not stay.
Units whose maps are zero go first, and are no clusters.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import silhouette_score
from torch import Tensor, fx
from torch.nn.functional import adaptive_avg_pool2d

from whyprune.criteria.answer import scored_together
from whyprune.criteria.feature_maps import affordable, as_matrices, channels_first, seen
from whyprune.criteria.redundancy import Floats, by_group
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.errors import InputError
from whyprune.scoring.contract import Question, scorer
from whyprune.structure.entry import entered
from whyprune.structure.network import Network
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.units import Unit

POOLED, CANDIDATES = 4, 32
"""Maps are pooled to 4 x 4 places; about so many numbers of clusters are tried for a group."""
TIE = 1e-9
"""Distances as close as this are equal: two points are as far from their mean, but for rounding."""
FEWEST, WITHIN = 0.1, 0.05
"""No fewer clusters than this share of the units; silhouettes this close to the best count as equal."""


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
    replay, tensors = Replay.of(state), seen(state)
    parts: dict[fx.Node, list[Tensor]] = {node: [] for node in tensors}
    images = 0
    for batch in entered(data, state.network):
        values = replay.run(batch, keep=tensors)
        for node, reader in tensors.items():
            maps = as_matrices(channels_first(state, values[node], reader, len(batch))).double()
            size = (min(maps.shape[2], POOLED), min(maps.shape[3], POOLED))
            parts[node].append(adaptive_avg_pool2d(maps, size).transpose(0, 1).flatten(1))
        images += len(batch)
    if not images:
        raise InputError("there is no data: feature maps need images")
    return {node: torch.cat(found, dim=1) for node, found in parts.items()}, images


def _vectors(state: State, units: Sequence[Unit], tables: dict[fx.Node, Tensor]) -> Floats:
    """(units, numbers): what every tensor holds of a unit, side by side."""
    replay, tensors = Replay.of(state), seen(state)
    found = []
    for node, table in tables.items():
        places = [replay.positions(tensors[node].labels, [unit]) for unit in units]
        if all(len(at) for at in places) and len({len(at) for at in places}) == 1:
            found.append(torch.stack([table[at].flatten() for at in places]))
    return torch.cat(found, dim=1).numpy() if found else np.zeros((len(units), 1))


def clustered(vectors: Floats) -> tuple[Floats, int]:
    """Scores (N,) of vectors (N, D), and the number of clusters that the silhouette chooses (at least 1)."""
    norms = np.linalg.norm(vectors, axis=1)
    alive = np.flatnonzero(norms > 0)
    scores = np.zeros(len(vectors))
    if len(alive) < 2:
        scores[alive] = 1.0
        return scores, max(1, len(alive))
    points = vectors[alive] / norms[alive, None]
    tree = linkage(points, "ward")
    scores[alive] = _heights(points, tree, norms[alive])
    return scores, _chosen(points, tree)


def _heights(points: Floats, tree: Floats, norms: Floats) -> Floats:
    """The height of the merge at which every point stops standing for its cluster; the last one stays above all."""
    count = len(points)
    stands, sums, sizes = list(range(count)), [*points], [1] * count
    found = np.full(count, 0.0)
    for left, right, height, _ in tree:
        first, second = int(left), int(right)
        total, size = sums[first] + sums[second], sizes[first] + sizes[second]
        rivals = (stands[first], stands[second])
        away = [float(np.linalg.norm(points[r] - total / size)) for r in rivals]
        stays = _less(away, tie=_less([-float(norms[r]) for r in rivals], tie=int(rivals[1] < rivals[0])))
        found[rivals[1 - stays]] = height
        stands.append(rivals[stays])
        sums.append(total)
        sizes.append(size)
    found[stands[-1]] = max(float(found.max()) * 1.001, np.finfo(float).tiny)  # finite, and above all others
    return found


def _less(pair: Sequence[float], tie: int) -> int:
    """Which of two numbers is less, 0 or 1; `tie` where they differ by rounding alone."""
    level = abs(pair[0] - pair[1]) <= TIE * max(map(abs, pair))
    return tie if level else int(pair[1] < pair[0])


def _chosen(points: Floats, tree: Floats) -> int:
    count = len(points)
    ks = range(max(2, round(FEWEST * count)), count, max(1, count // CANDIDATES))
    found = {}
    for k in ks:
        labels = fcluster(tree, k, "maxclust")
        if 2 <= len(np.unique(labels)) < count:
            found[len(np.unique(labels))] = float(silhouette_score(points, labels))
    if not found:
        return count
    best = max(found.values())
    return max(k for k, value in found.items() if value >= best - WITHIN * abs(best))


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
)
def feature_clusters_scores(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Merge heights on the images given."""
    return feature_clusters(state, affordable(batches, question), units=question.units)
