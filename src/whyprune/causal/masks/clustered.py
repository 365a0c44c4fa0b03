"""Least squares whose errors are honest where observations come in clusters: all rows on one image are one observation.

CR2 of Bell and McCaffrey (2002), HC2 where every cluster is a single row:

    V = sum_g M X_g' A_g e_g e_g' A_g X_g M,   M = (X' X)^-1,   A_g = (I - X_g M X_g')^(-1/2)

unbiased if all errors were independent and of one variance, and consistent whatever they are.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Floats = NDArray[np.float64]
SPENT = 1e-8


def least_squares(design: Floats, values: Floats, clusters: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Coefficients with an intercept, and their cluster-robust standard errors.

    Args:
        design: (rows, columns), without a column of ones.
        values: (rows,).
        clusters: (rows,), any number per cluster.

    Returns:
        (coefficients, standard errors), (columns,) each; the intercept's are left out.
    """
    whole = np.c_[np.ones(len(design)), design]
    inverse = linalg.pinvh(whole.T @ whole)
    coefficients = inverse @ (whole.T @ values)
    residuals, projected = values - whole @ coefficients, whole @ inverse
    variance = np.zeros(whole.shape[1])
    for rows in _by_size(clusters):
        leverage = projected[rows] @ whole[rows].transpose(0, 2, 1)
        adjusted = np.einsum("gab,gb->ga", _inverse_root(np.eye(rows.shape[1]) - leverage), residuals[rows])
        variance += (np.einsum("gab,ga->gb", projected[rows], adjusted) ** 2).sum(axis=0)
    return coefficients[1:], np.sqrt(variance[1:])


def _by_size(clusters: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Row numbers of all clusters, as one array (clusters, rows) for each size that occurs."""
    order = np.argsort(clusters, kind="stable")
    _, counts = np.unique(clusters, return_counts=True)
    parts = np.split(order, np.cumsum(counts)[:-1])
    return [np.stack([p for p in parts if len(p) == size]) for size in np.unique(counts)]


def _inverse_root(matrices: Floats) -> Floats:
    """A^(-1/2) of symmetric matrices (..., n, n); directions in which a cluster has no residual left count nothing."""
    values, vectors = np.linalg.eigh((matrices + matrices.swapaxes(-1, -2)) / 2)
    roots = np.where(values > SPENT, values.clip(SPENT) ** -0.5, 0.0)
    found: Floats = (vectors * roots[..., None, :]) @ vectors.swapaxes(-1, -2)
    return found
