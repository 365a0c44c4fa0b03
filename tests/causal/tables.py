"""Everything a small network can answer, enumerated: the effect of every set of units on every image."""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import comb

import numpy as np

from tiny import batches, digits, trained
from whyprune.causal.worlds import Worlds
from whyprune.structure.trace import trace
from whyprune.testing import planted


@dataclass
class Table:
    """Answers as `Worlds` does, by looking them up; `values` is (2^units, all images)."""

    units: tuple
    values: np.ndarray
    numbers: np.ndarray
    forwards: float = 0.0

    @property
    def images(self):
        return len(self.numbers)

    def effects(self, masks, images):
        self.forwards += len(images)
        return self.values[masks @ (1 << np.arange(len(self.units))), self.numbers[images]]

    def drawn(self, count, seed):
        """The same network on that many of the images, drawn independently."""
        return Table(self.units, self.values, np.random.default_rng(seed).integers(0, self.values.shape[1], count))

    def sets(self):
        """(2^units, units): the set of every row of the table."""
        return (np.arange(len(self.values))[:, None] >> np.arange(len(self.units)) & 1).astype(bool)

    def marginals(self, unit):
        """(sets without the unit, their marginal effects of the unit averaged over images)."""
        sets, mean = self.sets(), self.values.mean(axis=1)
        without = np.flatnonzero(~sets[:, unit])
        return sets[without], mean[without + (1 << unit)] - mean[without]

    def context(self, rate):
        """Context effects by the definition."""
        found = []
        for unit in range(len(self.units)):
            sets, marginal = self.marginals(unit)
            gone = sets.sum(axis=1)
            found.append((rate**gone * (1 - rate) ** (len(self.units) - 1 - gone)) @ marginal)
        return np.array(found)

    def shapley(self):
        """Shapley values by the definition."""
        count, found = len(self.units), []
        for unit in range(count):
            sets, marginal = self.marginals(unit)
            weights = [1 / (count * comb(count - 1, int(size))) for size in sets.sum(axis=1)]
            found.append(np.array(weights) @ marginal)
        return np.array(found)


def enumerated(worlds):
    count, images = len(worlds.units), worlds.images
    sets = (np.arange(1 << count)[:, None] >> np.arange(count) & 1).astype(bool)
    rows = np.repeat(np.arange(images), len(sets))  # image by image: the prefix runs once for each
    values = np.concatenate(
        [
            worlds.effects(np.tile(sets, (stop - start, 1)), rows[start * len(sets) : stop * len(sets)])
            for start, stop in pairwise([*range(0, images, 8), images])
        ]
    )
    return Table(worlds.units, values.reshape(images, len(sets)).T.copy(), np.arange(images))


@cache
def tiny_table(units=8, images=64):
    """Of the trained network: some units of every layer, the others stay."""
    network = trace(trained(), digits()[0][:2])
    names = [u.name for u in network.units]
    chosen = [names[k] for k in np.linspace(0, len(names) - 1, units).astype(int)]
    return enumerated(Worlds(network, batches(1000, 1000 + images), units=chosen))


@cache
def planted_table():
    """The nine planted units, on 48 images."""
    case = planted.case(1, 48)
    return enumerated(Worlds(case.network, [case.batch], units=[case.unit(k) for k in range(planted.UNITS)]))
