"""From numbers for the slices of coupled weights to one score per unit.

A unit has slices of several weights: filters of the layers that write it, input slices of those that read it. A
criterion scores every slice; a reduction makes one number of them. [C] DepGraph (Fang et al., CVPR 2023) takes the mean
of a group's layers by default, and has sum and max as well.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whyprune.errors import InputError
from whyprune.interventions.places import Indices, places_left
from whyprune.structure.state import State
from whyprune.structure.units import Unit, removed_indices

Floats = NDArray[np.float64]
SliceScores = Mapping[tuple[str, int], Floats]
"""(weight, axis) -> one number for every index of the axis."""
REDUCTIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda parts: float(np.mean(parts)),
    "sum": lambda parts: float(np.sum(parts)),
    "max": lambda parts: float(np.max(parts)),
}
DEFAULT = "mean"


def checked(reduction: str | None) -> str:
    """The reduction of that name; `mean` for None.

    Raises:
        InputError: there is none.
    """
    if reduction is None:
        return DEFAULT
    if reduction not in REDUCTIONS:
        raise InputError(f"no reduction named {reduction!r}: choose from {', '.join(REDUCTIONS)}")
    return reduction


def along_axes(tensors: Iterable[tuple[str, Tensor]], of_slices: Callable[[Tensor], Tensor]) -> SliceScores:
    """Numbers for all slices along the first two axes of every weight.

    Args:
        tensors: names and values; those of fewer than two dimensions (biases, entries of normalisations) are left out.
        of_slices: from float64 slices (N, D) to (N,).
    """
    found: dict[tuple[str, int], Floats] = {}
    for name, tensor in tensors:
        if tensor.dim() > 1:
            values = tensor.detach().double()
            for axis in (0, 1):
                found[name, axis] = of_slices(values.transpose(0, axis).flatten(1)).cpu().numpy()
    return found


def reduced(state: State, units: Sequence[Unit], scores: SliceScores, reduction: str | None = None) -> Floats:
    """One score per unit: the numbers of its indices in one slice are summed, then the slices are reduced.

    Args:
        state: in whose module the slices lie; those in bypassed blocks are gone.
        units: that are still there.
        scores: of the slices of the state's module.
        reduction: `mean`, `sum` or `max` over the slices of coupled weights; None for `mean`.

    Returns:
        (units,); 0 for a unit none of whose slices has a number.
    """
    combine, gone = REDUCTIONS[checked(reduction)], removed_indices(state.removed)
    parts = (list(_parts(unit, scores, gone)) for unit in units)
    return np.array([combine(own) if own else 0.0 for own in parts])


def _parts(unit: Unit, scores: SliceScores, gone: dict[tuple[str, int], Indices]) -> Iterator[float]:
    """One number for each weight that the unit has a slice of."""
    for piece in unit.slices:
        if (piece.parameter, piece.axis) in scores:
            yield float(scores[piece.parameter, piece.axis][places_left(piece, gone)].sum())


def distances(slices: Tensor) -> Tensor:
    """Euclidean distances (N, N) of the rows of (N, D), as exact as float64 allows: copies are at 0."""
    return torch.cdist(slices, slices, compute_mode="donot_use_mm_for_euclid_dist")
