"""Confidence intervals of means: of skewed values, and of values that come in clusters.

Effects are skewed: most images hardly mind, a few mind much. A t-interval then misses mostly above. Hall (1992, "On the
removal of skewness by transformation") moves its ends by a monotone cubic of the t-statistic T and the skewness g:

    T + a T² / 3 + a² T³ / 27 + a / 6,   a = g / sqrt(n)

which has the normal's distribution up to terms in 1/n. At g = 0 it is the t-interval. [P; t instead of normal
quantiles: I]
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
SYMMETRIC = 1e-9


def skew_corrected(
    mean: Floats, error: Floats, skewness: Floats, samples: Floats, level: float | Floats = 0.95
) -> tuple[Floats, Floats]:
    """(low, high) of means.

    Args:
        mean: (units,).
        error: standard errors, (units,).
        skewness: of the values that were averaged, (units,).
        samples: how many there were, (units,).
        level: confidence.
    """
    reach = stats.t.ppf((1 + np.asarray(level)) / 2, np.maximum(samples - 1, 1))
    a = skewness / np.sqrt(samples)
    return mean - error * _inverse(reach, a), mean - error * _inverse(-reach, a)


def _inverse(value: Floats, a: Floats) -> Floats:
    """The t-statistic that the cubic takes to `value`."""
    flat = np.abs(a) < SYMMETRIC
    safe = np.where(flat, 1.0, a)
    found: Floats = np.where(flat, value, 3 / safe * (np.cbrt(1 + safe * (value - safe / 6)) - 1))
    return found


def moments(values: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """(mean, standard error, skewness, samples) of the columns of (samples, columns); NaN: no value."""
    known = ~np.isnan(values)
    count = known.sum(axis=0).astype(np.float64)
    filled = np.where(known, values, 0.0)
    mean = filled.sum(axis=0) / np.maximum(count, 1)
    rest = np.where(known, values - mean, 0.0)
    variance = (rest**2).sum(axis=0) / np.maximum(count - 1, 1)
    safe = np.where(variance > 0, variance, 1.0)
    skewness = np.where(variance > 0, (rest**3).sum(axis=0) / np.maximum(count, 1) / safe**1.5, 0.0)
    return mean, np.sqrt(variance / np.maximum(count, 1)), skewness, count


def by_cluster(values: Floats, clusters: NDArray[np.int64]) -> Floats:
    """(clusters, columns): column means within each cluster of rows; NaN where a cluster has none."""
    _, place = np.unique(clusters, return_inverse=True)
    known = ~np.isnan(values)
    total, count = np.zeros((place.max() + 1, values.shape[1])), np.zeros((place.max() + 1, values.shape[1]))
    np.add.at(total, place, np.where(known, values, 0.0))
    np.add.at(count, place, known)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
