"""From distances between the units of a group to scores: of the closest two that are left, one goes."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx

from whyprune.criteria.coupled import checked
from whyprune.criteria.feature_maps import flat, summed_maps, unit_vectors
from whyprune.structure.state import State
from whyprune.structure.units import Unit

Floats = NDArray[np.float64]
ALONG: dict[str, Callable[..., Floats]] = {"mean": np.mean, "sum": np.sum, "max": np.max}
HAIR = 1e-12
"""Between the scores of units that go at the same distance, as a share of the largest."""
TIE = 1e-9
"""Distances closer than this are equal: float64 sums of a few hundred terms differ by less."""


def drop_distances(distances: Floats, worth: Floats) -> Floats:
    """For every unit the distance at which it goes, when of the closest two that are left the one of less worth goes.

    Args:
        distances: symmetric, (units, units).
        worth: (units,); of two that are closest, the one that is worth less goes, the later one of equals.

    Returns:
        (units,), not smaller than what went before; the last unit gets the largest distance there is.
    """
    return _dropped(distances, worth)[1]


def drop_scores(distances: Floats, worth: Floats) -> Floats:
    """Drop distances as scores: of units that go at one distance, whoever goes later has a hair more.

    Args:
        distances: as for `drop_distances`.
        worth: as for `drop_distances`.
    """
    going, found = _dropped(distances, worth)
    hair = HAIR * (float(distances.max(initial=0.0)) or 1.0)
    for before, after in pairwise(going):
        found[after] = max(found[after], found[before] + hair)
    return found


def _dropped(distances: Floats, worth: Floats) -> tuple[list[int], Floats]:
    """(the units in the order in which they go, the distances at which they do)."""
    count = len(distances)
    if count < 2:
        return list(range(count)), np.zeros(count)
    rows, columns = np.triu_indices(count, 1)
    found, left, going = np.full(count, float(distances.max())), np.ones(count, dtype=bool), list[int]()
    lesser = np.minimum(worth[rows], worth[columns])  # of pairs that are equally close, the least worth goes first
    for pair in np.lexsort((lesser, distances[rows, columns])):
        first, second = rows[pair], columns[pair]
        if left[first] and left[second]:
            goes = first if worth[first] < worth[second] - TIE * abs(worth[second]) else second
            left[goes] = False
            found[goes] = distances[first, second]
            going.append(int(goes))
    return [*going, int(np.flatnonzero(left)[0])], found


def by_group(units: Sequence[Unit]) -> dict[str, list[int]]:
    """Group -> the places of its units."""
    found: dict[str, list[int]] = {}
    for place, unit in enumerate(units):
        found.setdefault(unit.group, []).append(place)
    return found


def mean_maps(state: State, data: Iterable[Any]) -> tuple[dict[fx.Node, Tensor], int]:
    """The feature maps of every tensor in which units are read, averaged over images: (channels, places), float64.

    Returns:
        Tensor -> its mean maps, and the number of images.

    Raises:
        InputError: there is no data, or maps of several sizes.
    """
    sums, images = summed_maps(state, data, flat)
    return {node: total / images for node, total in sums.items()}, images


def group_distances(
    state: State,
    units: Sequence[Unit],
    vectors: dict[fx.Node, Tensor],
    distance: Callable[[Floats], Floats],
    reduction: str | None,
) -> Floats:
    """Distances (units, units) of the units of one group, reduced over the tensors in which they are read.

    Args:
        state: the network as it stands.
        units: of one group.
        vectors: tensor -> (channels, numbers); a unit's channels in it are put side by side.
        distance: from (units, numbers) to (units, units).
        reduction: over tensors: `mean`, `sum` or `max`.
    """
    found = [distance(own.numpy()) for own in unit_vectors(state, units, vectors)]
    if not found:
        return np.ones((len(units), len(units))) - np.eye(len(units))
    together: Floats = ALONG[checked(reduction)](np.stack(found), axis=0)
    return together
