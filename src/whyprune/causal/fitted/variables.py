"""The variables of a fitted causal model: one number per site and part of the network's units.

A part is a single unit as long as there are few; beyond that, a block of neighbouring units of one group, and its
number is their mean. What a unit does to its part is then its share of that mean: units of one part differ in nothing
else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from whyprune.causal.fitted.sites import Runs, Sites, sites
from whyprune.interventions.worlds import Worlds
from whyprune.structure.units import Unit

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Variables:
    """What a causal model speaks of.

    Attributes:
        units: the units asked for.
        where: the sites at which they are read.
        part: (units,), the number of each unit's part.
        titles: name of each part.
    """

    units: tuple[Unit, ...]
    where: Sites
    part: NDArray[np.int64]
    titles: tuple[str, ...]

    @cached_property
    def here(self) -> tuple[NDArray[np.int64], ...]:
        """Per site: the parts that are read there, ascending."""
        return tuple(np.unique(self.part[s.units]) for s in self.where.sites)

    @cached_property
    def averages(self) -> tuple[Floats, ...]:
        """Per site: (its units, its parts), the matrix that takes means over the units of each part."""
        found = []
        for site, here in zip(self.where.sites, self.here, strict=True):
            member = (self.part[site.units][:, None] == here[None, :]).astype(np.float64)
            found.append(member / member.sum(axis=0))
        return tuple(found)

    @cached_property
    def spans(self) -> tuple[slice, ...]:
        """Per site: where its variables lie among all."""
        ends = np.cumsum([0, *(len(h) for h in self.here)]).tolist()
        return tuple(slice(a, b) for a, b in pairwise(ends))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """A name for every variable: the part's, and the site's where the part is read at several."""
        counts = np.bincount(np.concatenate(self.here), minlength=len(self.titles))
        pairs = [(s, p) for s, here in zip(self.where.sites, self.here, strict=True) for p in here.tolist()]
        return tuple(self.titles[p] if counts[p] == 1 else f"{self.titles[p]} @ {s.name}" for s, p in pairs)

    @cached_property
    def tier(self) -> NDArray[np.int64]:
        """The number of the site of every variable: causes come first."""
        return np.repeat(np.arange(len(self.where)), [len(h) for h in self.here])

    @cached_property
    def parents(self) -> tuple[tuple[int, ...], ...]:
        """Per variable: the variables that feed it in the network."""
        found: list[tuple[int, ...]] = []
        for site, here in zip(self.where.sites, self.here, strict=True):
            read = [v for k in site.read for v in range(self.spans[k].start, self.spans[k].stop)]
            for part in here.tolist():
                own = [
                    self.spans[k].start + int(np.flatnonzero(self.here[k] == part)[0])
                    for k in site.passed
                    if part in self.here[k]
                ]
                found.append(tuple(sorted({*read, *own})))
        return tuple(found)

    def table(self, per_site: Sequence[Floats]) -> Floats:
        """(rows, variables) from summaries (rows, units) per site."""
        return np.concatenate([s @ a for s, a in zip(per_site, self.averages, strict=True)], axis=1)

    def shares(self, runs: Runs, values: Sequence[Floats] | None, unit: int) -> Floats:
        """(rows, variables): by how much do(unit := v) moves what is seen, every part but the unit staying as it is.

        Args:
            runs: without intervention.
            values: per site (rows, units), the value v; None for zero.
            unit: its place.
        """
        moved = []
        for k, site in enumerate(self.where.sites):
            column = site.units == unit
            target = 0.0 if values is None else values[k][:, column]
            moved.append((target - runs.raw[k][:, column]) @ self.averages[k][column])
        return np.concatenate(moved, axis=1)


def variables(worlds: Worlds, most: int) -> Variables:
    """At most `most` variables (more only if there are more groups and sites than that)."""
    where = sites(worlds.replay, worlds.units)
    groups = list(dict.fromkeys(u.group for u in worlds.units))
    members = {g: [k for k, u in enumerate(worlds.units) if u.group == g] for g in groups}
    blocks = max(len(m) for m in members.values())
    while blocks > 1 and _count(where, _parts(members, blocks)[0]) > most:
        blocks -= 1
    part, ranges = _parts(members, blocks)
    titles = [_title([worlds.units[k] for k in block]) for block in ranges]
    return Variables(worlds.units, where, part, tuple(titles))


def _parts(members: dict[str, list[int]], blocks: int) -> tuple[NDArray[np.int64], list[list[int]]]:
    ranges = [b.tolist() for m in members.values() for b in np.array_split(m, min(blocks, len(m)))]
    part = np.zeros(sum(map(len, ranges)), dtype=np.int64)
    for number, block in enumerate(ranges):
        part[block] = number
    return part, ranges


def _count(where: Sites, part: NDArray[np.int64]) -> int:
    return sum(len(np.unique(part[s.units])) for s in where.sites)


def _title(units: Sequence[Unit]) -> str:
    return units[0].name if len(units) == 1 else f"{units[0].name}-{units[-1].index}"
