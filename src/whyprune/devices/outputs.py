"""Whether the outputs of a file are those of PyTorch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from whyprune.errors import VerificationError

TOLERANCE = 1e-3


def agreement(expected: Sequence[Tensor], found: Sequence[Tensor], tolerance: float | None, what: str) -> float:
    """The largest absolute difference.

    Args:
        expected: PyTorch's outputs.
        found: the file's.
        tolerance: largest difference allowed, as a share of the largest output, or of 1 if that is larger; None for
            any difference, where the file computes otherwise by design.
        what: the file, for the message.

    Raises:
        VerificationError: other shapes, values that are not finite, or more than the tolerance apart.
    """
    shapes = [[tuple(t.shape) for t in side] for side in (expected, found)]
    if shapes[0] != shapes[1]:
        raise VerificationError(f"{what} gives outputs of shapes {shapes[1]}, PyTorch {shapes[0]}: do not use it")
    pairs = [(e.double(), f.double()) for e, f in zip(expected, found, strict=True) if e.numel()]
    if not all(bool(torch.isfinite(f).all()) for _, f in pairs):
        raise VerificationError(f"{what} gives NaN or infinite values: do not use it")
    worst = max((float((e - f).abs().max()) for e, f in pairs), default=0.0)
    largest = max((float(e.abs().max()) for e, _ in pairs), default=0.0)
    if tolerance is not None and not worst <= tolerance * max(1.0, largest):
        raise VerificationError(
            f"{what} differs from PyTorch by {worst:.3g}, more than {tolerance:g} of outputs up to {largest:.3g}: "
            "do not use it"
        )
    return worst
