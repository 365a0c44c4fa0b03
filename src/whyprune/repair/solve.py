"""Closed-form refits: ridge regression towards the weights that are there, aware of a following ReLU."""

import torch
from torch import Tensor

RIDGE = 1e-3
MOST_STRENGTH = 12
"""Powers of ten by which the ridge may grow."""


def refit(
    x: Tensor,
    target: Tensor,
    offset: Tensor | None,
    start: Tensor,
    *,
    ridge: float = RIDGE,
    relu_passes: int = 0,
    intercept: bool = True,
) -> tuple[Tensor, Tensor]:
    """Weights W and biases b that bring `x W' + b + offset` closest to `target`.

    Minimises sum |x W' + b + offset - t|^2 + ridge * mean(diag(x'x)) * |W - start|^2. The ridge shrinks towards
    `start`, the weights of the layer: what the images do not determine stays as it was trained.

    With `relu_passes` the value goes into a ReLU: where the target is negative, any negative value is as good. Each
    pass replaces such targets by the prediction itself where that is negative, by 0 otherwise, and solves again
    (alternating projections; what is minimised, counting only what is above 0 there, does not increase).

    Args:
        x: features, (n, D); of a layer with groups (groups, n, D), and all else with that dimension in front as well:
            every group is a problem of its own, with a ridge of its own.
        target: (n, O).
        offset: what another branch adds, (n, O).
        start: the current weights, (O, D).
        ridge: relative strength.
        relu_passes: how often to solve again for the ReLU.
        intercept: whether the layer has a bias to fit.

    Returns:
        W (O, D) and b (O,).
    """
    mean = x.mean(dim=-2) if intercept else torch.zeros_like(x[..., 0, :])
    centred = x - mean.unsqueeze(-2)
    gram = (centred.mT @ centred).double()
    strength = ridge * mean_diagonal(gram).clamp_min(1e-12)[..., None, None]
    factor = _factor(gram, strength)
    prior = strength * start.mT.double()

    def solve(t: Tensor) -> tuple[Tensor, Tensor]:
        weights = torch.cholesky_solve((centred.mT @ t).double() + prior, factor).to(x.dtype)
        bias = t.mean(dim=-2) - row_times(mean, weights) if intercept else torch.zeros_like(t[..., 0, :])
        return weights, bias

    base = target if offset is None else target - offset
    weights, bias = solve(base)
    silent = target <= 0
    for _ in range(relu_passes):
        predicted = (torch.addmm if x.dim() == 2 else torch.baddbmm)(bias.unsqueeze(-2), x, weights)
        ceiling = torch.zeros((), dtype=x.dtype) if offset is None else -offset
        weights, bias = solve(torch.where(silent, torch.minimum(predicted, ceiling), base))
    return weights.mT.contiguous(), bias


def row_times(row: Tensor, matrix: Tensor) -> Tensor:
    """A row (D,) times a matrix (D, O), or each of many rows times its matrix."""
    return row @ matrix if matrix.dim() == 2 else (row.unsqueeze(-2) @ matrix).squeeze(-2)


def mean_diagonal(gram: Tensor) -> Tensor:
    """The mean of the diagonal of a matrix, or of each of many."""
    return gram.diagonal(dim1=-2, dim2=-1).mean(dim=-1)


def _factor(gram: Tensor, strength: Tensor) -> Tensor:
    """The Cholesky factor of `gram + strength`; where rounding has left no definite matrix, of one with more on it."""
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    for power in range(MOST_STRENGTH):
        factor, failed = torch.linalg.cholesky_ex(gram + strength * 10.0**power * identity)
        if not bool(failed.any()):
            found: Tensor = factor
            return found
    largest: Tensor = gram.abs().amax(dim=(-2, -1), keepdim=True).clamp_min(1.0)
    return identity * largest.sqrt()
