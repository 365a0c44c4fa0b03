"""Where a unit's slices lie in a module from which other units are cut already."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from whyprune.structure.units import Slice

Indices = NDArray[np.int64]


def places_left(piece: Slice, gone: Mapping[tuple[str, int], Indices]) -> Indices:
    """The indices of a slice that is still there, in the tensor without what is gone.

    Args:
        piece: some indices of one axis of the original's tensor.
        gone: (parameter, axis) -> sorted indices of the original that are cut (see `removed_indices`).
    """
    indices = np.array(piece.indices, dtype=np.int64)
    lost = gone.get((piece.parameter, piece.axis))
    return indices if lost is None else indices - np.searchsorted(lost, indices)
