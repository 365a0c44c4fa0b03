"""Costs of counts that follow each other: what a change of a few groups does not touch is not computed again.

Exactly what the whole network is computed to cost: sums are rounded once, and so do not depend on the way that led to
them.
"""

from collections.abc import Mapping
from math import fsum

from whyprune.allocation.bounds import Counts
from whyprune.allocation.space import Point, Space
from whyprune.structure.axes import Axis
from whyprune.structure.cost import Largest
from whyprune.structure.parts import Summed, formula, summed


class _Total:
    """A cost at the counts it was last asked for, with the value of each of its parts."""

    def __init__(self, cost: Summed, gone: Mapping[Axis, int]) -> None:
        self.cost, self.parts = cost, cost.parts
        self.values = [part(gone) for part in self.parts]

    def now(self) -> float:
        return self.cost.of_sum(fsum(self.values))


class Increments:
    """What points cost when their widths are rounded, kind by kind.

    Attributes:
        near: per group those that decide, with it, what its moves change and how far it may go.
    """

    def __init__(self, space: Space, limits: Mapping[str, float]) -> None:
        self.space, self.limits, self.bounds = space, limits, space.bounds
        self._counts = self.bounds.rounded(self.bounds.before)
        self._sharing = [name for names in self.bounds.allied if len(names) > 1 for name in names]
        self._rounded: dict[tuple[int, ...], dict[str, int]] = {}
        self._gone: dict[Axis, int] = {}
        for group in self.bounds.groups.values():
            for parameter, axis, per_unit in group.axes:
                lost = self._counts[group.name] * per_unit
                self._gone[parameter, axis] = self._gone.get((parameter, axis), 0) + lost
        costs = {kind: summed(space.network.cost, kind) for kind in limits}
        self._totals = {kind: _Total(cost, self._gone) for kind, cost in costs.items() if cost is not None}
        self._users: dict[Axis, list[str]] = {}
        for name, group in self.bounds.groups.items():
            for parameter, axis, _ in group.axes:
                self._users.setdefault((parameter, axis), []).append(name)
        self._touched = self._touches()
        self.near = self._near()

    def amounts(self, point: Point) -> dict[str, float]:
        """Every kind that is bounded."""
        lost = self._go(self.space.counts(point))
        cost = self.space.network.cost
        return {
            kind: self._totals[kind].now() if kind in self._totals else cost.amount(kind, lost) for kind in self.limits
        }

    def pressures(self, point: Point) -> dict[str, float]:
        """Every kind as a share of its bound; of the largest of many all that is above it counts."""
        lost = self._go(self.space.counts(point))
        cost = self.space.network.cost
        return {
            kind: (self._totals[kind].now() if kind in self._totals else cost.pressure(kind, lost, limit)) / limit
            for kind, limit in self.limits.items()
        }

    def _go(self, counts: Counts) -> Mapping[Axis, int]:
        """Computes again what is not as it was; how many indices every axis loses at these counts, rounded."""
        rounded = self._round(counts) if self._sharing else counts
        known, gone = self._counts, self._gone
        changed = [name for name, count in rounded.items() if count != known[name]]
        for name in changed:
            more, known[name] = rounded[name] - known[name], rounded[name]
            for parameter, axis, per_unit in self.bounds.groups[name].axes:
                gone[parameter, axis] += more * per_unit
        for total, touched in zip(self._totals.values(), self._touched, strict=True):
            for number in {n for name in changed for n in touched[name]}:
                total.values[number] = total.parts[number](gone)
        return gone

    def _round(self, counts: Counts) -> Counts:
        """Counts at which groups that share an axis are rounded: those of others, at their stops, decide nothing."""
        key = tuple([counts[name] for name in self._sharing])
        found = self._rounded.get(key)
        if found is None:
            rounded = self.bounds.rounded(counts, self.bounds.loose)
            found = self._rounded[key] = {name: rounded[name] for name in self._sharing}
        return {**counts, **found}

    def _touches(self) -> list[dict[str, list[int]]]:
        """Per kind: group -> the numbers of the parts that its counts decide."""
        found = []
        for total in self._totals.values():
            touched: dict[str, list[int]] = {name: [] for name in self.bounds.groups}
            for number, part in enumerate(total.parts):
                for name in {name for axis in part.axes for name in self._users.get(axis, ())}:
                    touched[name].append(number)
            found.append(touched)
        return found

    def _near(self) -> dict[str, tuple[str, ...]]:
        """Those on a part or an axis of its own, and all of whom one may give units back for another.

        A price that names no parts is taken to add up over operations and parameters too, but for the largest of many.
        """
        cost, groups = self.space.network.cost, self.bounds.groups
        whole = {price.kind: price for price in cost.prices if price.kind in self.limits.keys() - self._totals}
        if any(isinstance(price, Largest) for price in whole.values()):  # there all groups decide
            return dict.fromkeys(groups, tuple(groups))
        known = [total.parts for total in self._totals.values()]
        known += [formula(cost, kind).parts for kind in ("macs", "params") if whole]
        near: dict[str, set[str]] = {name: set() for name in groups}
        for axes in (*((axis,) for axis in self._users), *(part.axes for parts in known for part in parts)):
            names = {name for axis in axes for name in self._users.get(axis, ())}
            for name in names:
                near[name] |= names
        allied = {name: names for names in self.bounds.allied for name in names}
        return {
            name: tuple(sorted({n for one in allied[name] for other in near[one] for n in allied[other]}))
            for name in near
        }
