"""One damped Gauss-Newton step for a function of a few tensors: least squares solved by conjugate gradients.

The step x minimises |J x - r|^2 + damping * sum D x^2, with J the derivative of the function and D the diagonal of
J'J, averaged over what shares an input channel (Levenberg 1944; Marquardt 1963). J is never formed: products with it
are differences of the function (Knoll & Keyes 2004), products with its transpose are derivatives.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Parameters = tuple[Tensor, ...]
Function = Callable[..., Tensor]
"""Of the parameters, each its own argument."""

PROBES = 2
REACH = 1e-4
"""How far a difference reaches, relative to the parameters: ReLUs must hardly switch, rounding must not show."""
LEAST_CURVATURE = 1e-3


def gauss_newton_step(
    functions: Sequence[Function],
    parameters: Parameters,
    residuals: Sequence[Tensor],
    weights: Sequence[Tensor],
    *,
    iterations: int,
    damping: float,
    generator: torch.Generator,
) -> Parameters:
    """The step of the parameters that takes the functions' values closest to their values plus `residuals`.

    Args:
        functions: one for each batch; of the parameters.
        parameters: where derivatives are taken.
        residuals: what is missing, for each batch, of the function's shape.
        weights: for each batch, 1 where a value counts and 0 where it does not, of the function's shape.
        iterations: of conjugate gradients, at most.
        damping: relative to the diagonal of J'J.
        generator: of the signs that the diagonal is estimated from (Bekas, Kokiopoulou & Saad 2007).
    """
    pulled = [torch.func.vjp(function, *parameters)[:2] for function in functions]
    size = math.sqrt(_dot(parameters, parameters)) or 1.0

    def transposed(values: Sequence[Tensor]) -> Parameters:
        parts = [back(v * w) for (_, back), v, w in zip(pulled, values, weights, strict=True)]
        return tuple(torch.stack(p).sum(dim=0) for p in zip(*parts, strict=True))

    def normal(step: Parameters) -> Parameters:
        """J'J x."""
        by = REACH * size / math.sqrt(_dot(step, step))
        there = tuple(p + by * s for p, s in zip(parameters, step, strict=True))
        return transposed([(function(*there) - y) / by for function, (y, _) in zip(functions, pulled, strict=True)])

    scale = _diagonal(transposed, residuals, generator)
    gradient = transposed(residuals)
    step = tuple(torch.zeros_like(p) for p in parameters)
    left, ahead = gradient, _divided(gradient, scale)
    direction, power = ahead, _dot(left, ahead)
    solved = power * torch.finfo(parameters[0].dtype).eps ** 2
    for _ in range(iterations):
        if not power > solved:
            break
        image = tuple(a + damping * s * d for a, s, d in zip(normal(direction), scale, direction, strict=True))
        curvature = _dot(direction, image)
        if not curvature > 0:  # differences are off by more than what is left
            break
        length = power / curvature
        step = tuple(x + length * d for x, d in zip(step, direction, strict=True))
        left = tuple(a - length * b for a, b in zip(left, image, strict=True))
        ahead = _divided(left, scale)
        before, power = power, _dot(left, ahead)
        direction = tuple(a + power / before * d for a, d in zip(ahead, direction, strict=True))
    return step


def _diagonal(
    transposed: Callable[[Sequence[Tensor]], Parameters], like: Sequence[Tensor], generator: torch.Generator
) -> Parameters:
    """The diagonal of J'J: (J's)^2 for random signs s, averaged over what shares an input channel."""
    total: Parameters = ()
    for _ in range(PROBES):
        signs = [torch.randint(0, 2, r.shape, generator=generator).mul_(2).sub_(1).to(r.dtype) for r in like]
        found = tuple(p.square() / PROBES for p in transposed(signs))
        total = found if not total else tuple(a + b for a, b in zip(total, found, strict=True))
    return tuple(_shared(t) for t in total)


def _shared(squares: Tensor) -> Tensor:
    """(O, I, ...) averaged over all but I; never so small that a channel could run away."""
    shared = [d for d in range(squares.dim()) if d != 1 or squares.dim() == 1]
    mean = squares.mean(dim=shared, keepdim=True)
    return mean.clamp_min(LEAST_CURVATURE * float(mean.mean()) + torch.finfo(mean.dtype).tiny).expand_as(squares)


def _divided(left: Parameters, right: Parameters) -> Parameters:
    return tuple(a / b for a, b in zip(left, right, strict=True))


def _dot(left: Parameters, right: Parameters) -> float:
    return sum(float((a * b).sum(dtype=torch.float64)) for a, b in zip(left, right, strict=True))
