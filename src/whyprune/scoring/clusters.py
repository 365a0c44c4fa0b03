"""Hierarchical clusters of a group's units: which of them stand for others, and how many are distinct.

Ward's linkage of vectors of length 1, each with a weight: clusters A and B merge at

    height^2 = 2 w_A w_B / (w_A + w_B) |c_A - c_B|^2

with w the sum of the weights of a cluster and c the weighted mean of its vectors: twice what the merge adds to the
weighted squared distances from the means. With equal weights that is the common one (Ward, 1963). The number of
clusters is that of the largest silhouette (Rousseeuw, 1987), as in Wu et al., Applied Sciences 2022. Ours [I]:
candidates start at a tenth of the units; of those whose silhouette is within 5% of the best the largest, since
silhouettes favour few clusters.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist
from sklearn.metrics import silhouette_samples

Floats = NDArray[np.float64]
CANDIDATES = 32
"""About so many numbers of clusters are tried for a group."""
TIE = 1e-9
"""Distances as close as this are equal: two points are as far from their mean, but for rounding."""
FEWEST, WITHIN = 0.1, 0.05
"""No fewer clusters than this share of the units; silhouettes this close to the best count as equal."""


def clustered(vectors: Floats, weights: Floats | None = None) -> tuple[Floats, int]:
    """The height of the merge at which every unit stops standing for its cluster, and how many clusters there are.

    Of two clusters that merge the representative of larger weight stays; without weights the one closer to their common
    mean. Of two that are level the one whose vector was longer stays, so that their order decides between copies only.

    Args:
        vectors: (N, D); those of zeros go first, at height 0, and are no clusters.
        weights: (N,), not negative: what every unit counts; those without weight go first as well.

    Returns:
        Heights (N,), the last unit's above all others, and the number of clusters that the silhouette chooses (at
        least 1).
    """
    norms = np.linalg.norm(vectors, axis=1)
    alive = np.flatnonzero((norms > 0) if weights is None else (norms > 0) & (weights > 0))
    scores = np.zeros(len(vectors))
    own = None if weights is None else weights[alive]
    if len(alive) < 2:
        scores[alive] = 1.0 if own is None else np.sqrt(own)
        return scores, max(1, len(alive))
    points = vectors[alive] / norms[alive, None]
    tree = linkage(points, "ward") if own is None else weighted_ward(points, own)
    scores[alive] = _heights(points, tree, norms[alive], own)
    return scores, _chosen(points, tree, own)


def weighted_ward(points: Floats, weights: Floats) -> Floats:
    """The merges of Ward's linkage of weighted points, as scipy's `linkage` gives them.

    Args:
        points: (N, D).
        weights: (N,), positive.

    Returns:
        (N - 1, 4): the two clusters that merge, their height, and how many points they hold.
    """
    count = len(points)
    centres, masses, sizes = points.copy(), weights.astype(np.float64), np.ones(count)
    names, tree = np.arange(count), np.zeros((count - 1, 4))
    costs = 2 * np.outer(masses, masses) / np.add.outer(masses, masses) * cdist(points, points, "sqeuclidean")
    np.fill_diagonal(costs, np.inf)
    for step in range(count - 1):
        first, second = divmod(int(np.argmin(costs)), count)
        low, high = sorted((names[first], names[second]))
        tree[step] = low, high, np.sqrt(costs[first, second]), sizes[first] + sizes[second]
        both = masses[first] + masses[second]
        centres[first] += masses[second] / both * (centres[second] - centres[first])
        masses[first], sizes[first], names[first] = both, sizes[first] + sizes[second], count + step
        costs[second], costs[:, second] = np.inf, np.inf
        left = np.isfinite(costs[first])
        away = np.square(centres[left] - centres[first]).sum(axis=1)
        costs[first, left] = costs[left, first] = 2 * masses[left] * both / (masses[left] + both) * away
    tree[:, 2] = np.maximum.accumulate(tree[:, 2])  # rounding alone makes a later one lower
    return tree


def _heights(points: Floats, tree: Floats, norms: Floats, weights: Floats | None) -> Floats:
    """The height of the merge at which every point stops standing for its cluster; the last one stays above all."""
    count = len(points)
    stands, sums, sizes = list(range(count)), [*points], [1] * count
    found = np.full(count, 0.0)
    for left, right, height, _ in tree:
        first, second = int(left), int(right)
        total, size = sums[first] + sums[second], sizes[first] + sizes[second]
        rivals = (stands[first], stands[second])
        if weights is None:
            behind = [float(np.linalg.norm(points[r] - total / size)) for r in rivals]
        else:
            behind = [-float(weights[r]) for r in rivals]
        stays = _less(behind, tie=_less([-float(norms[r]) for r in rivals], tie=int(rivals[1] < rivals[0])))
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


def _chosen(points: Floats, tree: Floats, weights: Floats | None) -> int:
    count = len(points)
    ks = range(max(2, round(FEWEST * count)), count, max(1, count // CANDIDATES))
    found = {}
    for k in ks:
        labels = fcluster(tree, k, "maxclust")
        if 2 <= len(np.unique(labels)) < count:
            found[len(np.unique(labels))] = float(np.average(silhouette_samples(points, labels), weights=weights))
    if not found:
        return count
    best = max(found.values())
    return max(k for k, value in found.items() if value >= best - WITHIN * abs(best))
