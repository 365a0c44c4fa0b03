"""Everything a small network can answer: the effect of every set of units on every image, and all estimands from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import comb

import numpy as np
from numpy.typing import NDArray

from whyprune.interventions.worlds import Worlds
from whyprune.structure.units import Unit

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]


@dataclass
class EnumeratedEffects:
    """Effects of all sets of units; answers as `Worlds` does, by looking them up.

    Attributes:
        units: the units that sets are of.
        values: (2^units, images), effects of all sets; bit k of the row's number says whether unit k is in the set.
        numbers: which of the enumerated images there are, in this order; they may repeat.
        forward_passes: how many rows were asked for.
    """

    units: Sequence[Unit]
    values: Floats
    numbers: Numbers
    forward_passes: float = 0.0

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.numbers)

    def effects(self, masks: Flags, images: Numbers) -> Floats:
        """Y(do(units of the row := v)) - Y on the row's image, (rows,)."""
        self.forward_passes += len(images)
        found: Floats = self.values[masks @ (1 << np.arange(len(self.units))), self.numbers[images]]
        return found

    def drawn(self, count: int, seed: int) -> "EnumeratedEffects":
        """The same network on that many of its images, drawn independently."""
        return EnumeratedEffects(
            self.units, self.values, np.random.default_rng(seed).integers(0, self.values.shape[1], count)
        )

    def single(self) -> Floats:
        """Single effects, (units,)."""
        return np.array([self.values[1 << k].mean() for k in range(len(self.units))])

    def context(self, rate: float) -> Floats:
        """Context effects by the definition, (units,)."""
        others = len(self.units) - 1
        found = []
        for unit in range(len(self.units)):
            gone, marginal = self._marginals(unit)
            found.append(float((rate**gone * (1 - rate) ** (others - gone)) @ marginal))
        return np.array(found)

    def shapley(self) -> Floats:
        """Shapley values by the definition, (units,)."""
        count = len(self.units)
        found = []
        for unit in range(count):
            gone, marginal = self._marginals(unit)
            weights = np.array([1 / (count * comb(count - 1, int(size))) for size in gone])
            found.append(float(weights @ marginal))
        return np.array(found)

    def _marginals(self, unit: int) -> tuple[Numbers, Floats]:
        """Over all sets without the unit: how many are gone, and the mean marginal effect of the unit."""
        sets, mean = all_sets(len(self.units)), self.values.mean(axis=1)
        without = np.flatnonzero(~sets[:, unit])
        return sets[without].sum(axis=1), mean[without + (1 << unit)] - mean[without]


def all_sets(units: int) -> Flags:
    """(2^units, units): bit k of the row's number says whether unit k is in the set."""
    return (np.arange(1 << units)[:, None] >> np.arange(units) & 1).astype(bool)


def enumerated(worlds: Worlds, together: int = 8) -> EnumeratedEffects:
    """Runs every set of units on every image, `together` images at a time."""
    sets, images = all_sets(len(worlds.units)), worlds.images
    parts = [
        worlds.effects(np.tile(sets, (stop - start, 1)), np.repeat(np.arange(start, stop), len(sets)))
        for start, stop in pairwise([*range(0, images, together), images])
    ]
    return EnumeratedEffects(worlds.units, np.concatenate(parts).reshape(images, len(sets)).T.copy(), np.arange(images))
