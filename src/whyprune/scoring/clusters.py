"""Hierarchical clusters of a group's units: which of them stand for others, and how many are distinct.

Ward's linkage of vectors of length 1, each with a weight: two clusters A and B merge at

    height^2 = 2 w_A w_B / (w_A + w_B) |c_A - c_B|^2

with w the sum of the weights of a cluster and c the weighted mean of its vectors: what the merge adds, twice, to the
weighted squared distances from the mean. With equal weights it is the common one (Ward, 1963). The number of clusters
is that of the largest silhouette (Rousseeuw, 1987), as in Wu et al., Applied Sciences 2022. [I] Candidates start at a
tenth of the units; of those whose silhouette is within 5% of the best the largest, since silhouettes favour few clusters.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import silhouette_score

Floats = NDArray[np.float64]
CANDIDATES = 32
"""About so many numbers of clusters are tried for a group."""
TIE = 1e-9
"""Distances as close as this are equal: two points are as far from their mean, but for rounding."""
FEWEST, WITHIN = 0.1, 0.05
"""No fewer clusters than this share of the units; silhouettes this close to the best count as equal."""


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
    scores[alive] = _heights(points, tree)
    return scores, _chosen(points, tree)


def _heights(points: Floats, tree: Floats) -> Floats:
    """The height of the merge at which every point stops standing for its cluster; the last one stays above all."""
    count = len(points)
    stands, sums, sizes = list(range(count)), [*points], [1] * count
    found = np.full(count, 0.0)
    for left, right, height, _ in tree:
        first, second = int(left), int(right)
        total, size = sums[first] + sums[second], sizes[first] + sizes[second]
        rivals = (stands[first], stands[second])
        away = [float(np.linalg.norm(points[r] - total / size)) for r in rivals]
        level = abs(away[0] - away[1]) <= TIE * max(away)
        stays = int(rivals[1] < rivals[0] if level else away[1] < away[0])
        found[rivals[1 - stays]] = height
        stands.append(rivals[stays])
        sums.append(total)
        sizes.append(size)
    found[stands[-1]] = max(float(found.max()) * 1.001, np.finfo(float).tiny)  # finite, and above all others
    return found


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
