"""How many units every group may lose: what the axes that groups share, and constraints, leave free."""

import math
from collections.abc import Collection, Mapping
from functools import cached_property

import networkx as nx

from whyprune.allocation.constraints import Constraints
from whyprune.errors import InputError
from whyprune.structure.axes import Axis
from whyprune.structure.network import Network

Counts = Mapping[str, int]
"""Group -> units gone, those included that were gone before."""


class WidthBounds:
    """Bounds on counts of removed units, relative to the dense network; no axis loses its last channel.

    Least widths and largest shares hold at every count that `left` allows. Multiples hold at `rounded` counts only, so
    that a walk can go unit by unit.

    Attributes:
        before: group -> units that are gone already.
    """

    def __init__(self, network: Network, before: Counts, constraints: Constraints, most: Counts | None = None) -> None:
        """Works out the bounds; of each group at most `most` units go."""
        self.groups = {group.name: group for group in network.groups}
        self.before = {name: int(before.get(name, 0)) for name in self.groups}
        self._users: dict[Axis, list[tuple[str, int]]] = {}
        for group in network.groups:
            for parameter, axis, per_unit in group.axes:
                self._users.setdefault((parameter, axis), []).append((group.name, per_unit))
        shapes = network.cost.shapes
        self._sizes = {(parameter, axis): shapes[parameter][axis] for parameter, axis in self._users}
        self._first = {group.name: group.home for group in network.groups}
        self._multiples: dict[Axis, int] = {}
        self._least = dict.fromkeys(self._users, 1)
        self._most = dict.fromkeys(self.groups, 0)
        self._tighten(network, constraints, most or {})

    def _tighten(self, network: Network, constraints: Constraints, most: Counts) -> None:
        """Works out the least width of every axis and the most units that go of every group."""
        widths: dict[Axis, int] = {}
        for name, limit in constraints.limits(network).items():
            group, axis = self.groups[name], self._first[name]
            self._multiples[axis] = math.lcm(self._multiples.get(axis, 1), limit.multiple)
            widths[axis] = max(widths.get(axis, 1), limit.width)
            units = len(group.units)
            self._most[name] = max(self.before[name], min(units, limit.most(units), most.get(name, units)))
        self._multiples = {axis: multiple for axis, multiple in self._multiples.items() if multiple > 1}
        changed = True
        while changed:  # what one axis keeps bounds the groups on it, and with them the next axis
            changed = False
            for axis, width in widths.items():
                least = self._narrowest(axis, width)
                changed |= least > self._least[axis]
                self._least[axis] = least
                for name, per_unit in self._users[axis]:
                    self._most[name] = max(
                        self.before[name], min(self._most[name], (self._sizes[axis] - least) // per_unit)
                    )

    def _narrowest(self, axis: Axis, width: int) -> int:
        """The least width an axis can get to: a multiple, or whole."""
        size, users = self._sizes[axis], self._users[axis]
        multiple, step = self._multiples.get(axis, 1), math.gcd(*(per_unit for _, per_unit in users))
        low = max(1, min(width, size), size - sum(self._most[name] * per_unit for name, per_unit in users))
        return next((w for w in range(low + -low % multiple, size, multiple) if (size - w) % step == 0), size)

    def left(self, counts: Counts, name: str) -> int:
        """How many more units of a group may go at these counts."""
        free = self._most[name] - counts[name]
        for parameter, axis, per_unit in self.groups[name].axes:
            kept = self._kept((parameter, axis), counts)
            free = min(free, (kept - self._least[parameter, axis]) // per_unit)
        return max(free, 0)

    def filled(self, amounts: Counts) -> dict[str, int]:
        """Counts with up to so many further units of each group gone, taken in this order; not rounded."""
        counts = dict(self.before)
        for name, units in amounts.items():
            counts[name] += min(units, self.left(counts, name))
        return counts

    def wide_enough(self, counts: Counts, idle: Collection[str] = ()) -> bool:
        """Whether every axis keeps its least width, but for those that only idle groups lie on."""
        return all(
            self._kept(axis, counts) >= self._least[axis]
            for axis, users in self._users.items()
            if not all(name in idle for name, _ in users)
        )

    def rivals(self, counts: Counts) -> dict[str, int]:
        """Counts of the groups that lose units while another group on the same first axis cannot."""
        return {
            name: count
            for name, count in counts.items()
            if count > self.before[name]
            and any(counts[n] < self._most[n] for n, _ in self._users[self._first[name]] if n != name)
        }

    def multiples(self, name: str) -> list[int] | None:
        """The counts at which a group alone on its axis may stop; None where it may stop anywhere."""
        axis = self._first[name]
        if axis not in self._multiples or len(self._users[axis]) > 1:
            return None
        return [n for n in range(self.before[name], self._most[name] + 1) if not self._missing(axis, {name: n})]

    def most(self, name: str) -> int:
        """The most units of a group that may be gone."""
        return self._most[name]

    def rounded(self, counts: Counts, axes: Collection[Axis] | None = None) -> dict[str, int]:
        """Counts at or little below `counts` at which every width is a multiple or whole.

        With `axes` only these are looked at.

        Raises:
            InputError: the units that were gone before break the multiples.
        """
        found = dict(counts)
        looked_at = self._multiples if axes is None else axes
        while (axis := next((a for a in looked_at if self._missing(a, found)), None)) is not None:
            found[self._giver(axis, found)] -= 1
        return found

    @cached_property
    def allied(self) -> tuple[frozenset[str], ...]:
        """The groups, parted so that `rounded` takes of none for what another part has; most are alone."""
        graph = nx.Graph()
        graph.add_nodes_from(self.groups)
        for axis in self._multiples:
            nx.add_path(graph, [name for name, _ in self._users[axis]])
        return tuple(frozenset(names) for names in nx.connected_components(graph))

    @cached_property
    def loose(self) -> tuple[Axis, ...]:
        """The axes that may be no multiple although every group is at one of its stops."""
        alone = {name for names in self.allied if len(names) == 1 for name in names}
        return tuple(a for a in self._multiples if not all(name in alone for name, _ in self._users[a]))

    def lost(self, counts: Counts) -> dict[Axis, int]:
        """How many indices every axis loses."""
        gone: dict[Axis, int] = {}
        for name, count in counts.items():
            if count:
                for parameter, axis, per_unit in self.groups[name].axes:
                    gone[parameter, axis] = gone.get((parameter, axis), 0) + count * per_unit
        return gone

    def _giver(self, axis: Axis, counts: Counts) -> str:
        """The group that gives a unit back: one that fits, rather one of the axis's own, the one that lost most."""
        missing = self._missing(axis, counts)
        able = [
            (per_unit <= missing, self._first[name] == axis, counts[name] / len(self.groups[name].units), name)
            for name, per_unit in self._users[axis]
            if counts[name] > self.before[name]
        ]
        if not able:
            raise InputError(
                f"{axis[0]} (axis {axis[1]}) has {self._kept(axis, counts)} channels left after what is removed "
                f"already: no multiple of {self._multiples[axis]}"
            )
        return max(able)[-1]

    def _missing(self, axis: Axis, counts: Counts) -> int:
        """How many channels would have to come back for the axis to be a multiple or whole."""
        kept = self._kept(axis, counts)
        return min(-kept % self._multiples[axis], self._sizes[axis] - kept)

    def _kept(self, axis: Axis, counts: Counts) -> int:
        return self._sizes[axis] - sum(counts.get(name, 0) * per_unit for name, per_unit in self._users[axis])
