"""Few exact effects and many cheap guesses: the control variate, also known as model-assisted estimation.

With exact effects d on n images, a surrogate g on N images among which the n are, and a constant c:

    tau^ = mean_N(c g) + mean_n(d - c g),    Var ~ (1 - rho²) sigma² / n + rho² sigma² / N  at the best c

unbiased whatever g is. [P: Cochran 1977; "prediction-powered inference", Angelopoulos et al. 2023] A constant chosen
for each unit from its own few images makes intervals too narrow, so it is pooled over the units of a group, where it
makes the sum of their relative variances least, and cross-fitted: the images of one fold get the constant of the
others. [I]

Intervals are corrected for skewness: the third cumulant of tau^ is summed over images as its variance is. [I]
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whyprune.effects.intervals import skew_corrected

Floats = NDArray[np.float64]
FOLDS = 4


@dataclass(frozen=True)
class Estimates:
    """Means with what their intervals need, (units,) each.

    Attributes:
        mean: tau^.
        error: its standard error.
        skewness: of tau^, times sqrt(samples).
        samples: exact effects per unit.
    """

    mean: Floats
    error: Floats
    skewness: Floats
    samples: Floats

    def interval(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """(low, high) at a confidence level."""
        return skew_corrected(self.mean, self.error, self.skewness, self.samples, level)


def estimates(direct: Floats, surrogate: Floats, groups: NDArray[np.int64]) -> Estimates:
    """The model-assisted means of all units.

    Args:
        direct: (units, n), exact effects; NaN where one is missing; two at least of each unit.
        surrogate: (units, N), guesses, N >= n; the first n belong to the images of `direct`.
        groups: (units,), the number of each unit's group.
    """
    images, everywhere = direct.shape[1], surrogate.shape[1]
    known = ~np.isnan(direct)
    values, guesses = np.where(known, direct, 0.0), surrogate[:, :images]
    fold = np.arange(images) % FOLDS
    constants = np.stack([_constants(values, guesses, known & (fold != k), groups) for k in range(FOLDS)])
    samples = known.sum(axis=1).astype(np.float64)
    share = np.stack([(known & (fold == k)).sum(axis=1) for k in range(FOLDS)]) / samples
    overall = (share * constants).sum(axis=0)
    rest = np.where(known, values - constants[fold].T * guesses, 0.0)
    predicted = overall[:, None] * surrogate
    mean = rest.sum(axis=1) / samples + predicted.mean(axis=1)
    inner = rest / samples[:, None] + predicted[:, :images] / everywhere
    inner = np.where(known, inner - _mean(inner, known)[:, None], 0.0)
    outer = (predicted - predicted.mean(axis=1, keepdims=True)) / everywhere
    alone = (everywhere - samples) / everywhere
    variance = (inner**2).sum(axis=1) * samples / np.maximum(samples - 1, 1) + alone * (outer**2).sum(axis=1)
    third = (inner**3).sum(axis=1) + alone * (outer**3).sum(axis=1)
    safe = np.where(variance > 0, variance, 1.0)
    return Estimates(mean, np.sqrt(variance), third / safe**1.5 * np.sqrt(samples), samples)


def _constants(values: Floats, guesses: Floats, inside: NDArray[np.bool_], groups: NDArray[np.int64]) -> Floats:
    """(units,): the constant of each unit's group, from the images `inside` (units, images) alone."""
    count = np.maximum(inside.sum(axis=1), 1)
    a = np.where(inside, values - _mean(values, inside)[:, None], 0.0)
    b = np.where(inside, guesses - _mean(guesses, inside)[:, None], 0.0)
    variance = (a**2).sum(axis=1) / count
    weight = np.divide(1.0, variance, out=np.zeros_like(variance), where=variance > 0)
    above = np.bincount(groups, weight * (a * b).sum(axis=1) / count)
    below = np.bincount(groups, weight * (b**2).sum(axis=1) / count)
    pooled: Floats = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return pooled[groups]


def _mean(values: Floats, inside: NDArray[np.bool_]) -> Floats:
    total: Floats = np.where(inside, values, 0.0).sum(axis=1) / np.maximum(inside.sum(axis=1), 1)
    return total
