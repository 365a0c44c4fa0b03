"""What is known of units as causes of an event, on many images: responsibility, blame, necessity, sufficiency."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Responsibilities:
    """Which units are causes of an event, on every image.

    Attributes:
        units: unit names.
        groups: the group of each unit.
        classes: (images,), the class that the network predicts; -1 where its output is no vector of logits.
        sets: (unit, image), as numbers -> names of the smallest contingency set found; only causes are in it.
        searched: up to which size all contingency sets were tried; a set of at most one unit more is a smallest one.
        event: name of the event.
        intervention: the value v of do(unit := v).
        forward_passes: cost in dense forward passes of one image.
        sufficient: (units, images), True where the event holds with only this unit left of its group.
        without_group: group -> (images,), True where it holds with nothing left of the group.
    """

    units: tuple[str, ...]
    groups: tuple[str, ...]
    classes: NDArray[np.int64]
    sets: Mapping[tuple[int, int], tuple[str, ...]]
    searched: int
    event: str
    intervention: str
    forward_passes: float
    sufficient: Flags | None = None
    without_group: Mapping[str, Flags] = field(default_factory=dict)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(units, images): k, the size of the smallest contingency set found; -1 where there is none."""
        found = np.full((len(self.units), len(self.classes)), -1, dtype=np.int64)
        for place, others in self.sets.items():
            found[place] = len(others)
        return found

    @property
    def values(self) -> Floats:
        """(units, images): degrees of responsibility, 1 / (1 + k), or 0."""
        sizes = self.sizes
        return np.where(sizes < 0, 0.0, 1.0 / (1.0 + np.maximum(sizes, 0)))

    @property
    def necessary(self) -> Flags:
        """(units, images): True where the event ends without the unit alone (but-for)."""
        necessary: Flags = self.sizes == 0
        return necessary

    @property
    def blame(self) -> Floats:
        """(units,): expected responsibility over the images."""
        blame: Floats = self.values.mean(axis=1)
        return blame

    def table(self) -> pa.Table:
        """A row per unit and predicted class, and one over all classes (class None): blame, necessity, sufficiency.

        Probabilities over images come with 95% intervals (see `share_interval`). `sufficiency` and
        `sufficiency_of_nothing` (the event with nothing left of the group) are null where they were not measured.
        """
        columns: dict[str, list[Any]] = defaultdict(list)
        values, necessary = self.values, self.necessary
        for chosen, label in [(np.ones(len(self.classes), dtype=bool), None)] + [
            (self.classes == c, int(c)) for c in np.unique(self.classes) if c >= 0
        ]:
            shares = {"blame": values[:, chosen], "necessity": necessary[:, chosen]}
            if self.sufficient is not None:
                shares["sufficiency"] = self.sufficient[:, chosen]
                shares["sufficiency_of_nothing"] = np.stack([self.without_group[g][chosen] for g in self.groups])
            columns["unit"] += self.units
            columns["class"] += [label] * len(self.units)
            columns["images"] += [int(chosen.sum())] * len(self.units)
            for name in ("blame", "necessity", "sufficiency", "sufficiency_of_nothing"):
                measured = name in shares
                mean = shares[name].mean(axis=1) if measured else np.full(len(self.units), np.nan)
                low, high = share_interval(mean, int(chosen.sum()))
                for suffix, found in (("", mean), ("_low", low), ("_high", high)):
                    columns[name + suffix] += found.tolist() if measured else [None] * len(self.units)
        return pa.table(dict(columns))

    def __repr__(self) -> str:
        return f"Responsibilities({len(self.units)} units, {len(self.classes)} images, {self.event})"


def share_interval(mean: Floats, images: int) -> tuple[Floats, Floats]:
    """95% intervals for means of numbers between 0 and 1, over images: Wilson's, for the variance m (1 - m).

    No number between 0 and 1 with mean m varies more, so for responsibilities (1, 1/2, 1/3, ...) they are wider than
    they need be; unlike t-intervals they are no points where all images agree.
    """
    z = float(stats.norm.ppf(0.975))
    middle = (mean + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * np.sqrt(mean * (1 - mean) / images + (z / (2 * images)) ** 2)
    return np.minimum(middle - half, mean).clip(0, 1), np.maximum(middle + half, mean).clip(0, 1)
