"""Widths where cost is a staircase: the best move of all, then the best changes, each at the exact cost.

On a device one channel fewer often saves nothing, and eight save all that sixteen could. So a group's moves go to every
stop ahead, not only to the next; a move's worth is its effect per saving, found anew after every move. Greedy moves
end below the budget; what is left over is then given back. After that one group, or a pair, is set to another stop
and held there, and the others follow, greedily again, as long as that lowers the effect: a local search, which on
small networks is compared with all plans there are.

A residual block that may go as a whole is one more name with two stops, there and gone; while it is gone the groups
inside it neither cost nor do anything.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, combinations
from typing import NamedTuple

import numpy as np

from whyprune.allocation.increments import Increments
from whyprune.allocation.room import Counts, Room
from whyprune.effects.effects import ResponseCurve
from whyprune.errors import BudgetError

SMALLEST = 1e-12
ROUNDING = 1e-9
ASKED = 300_000
"""Moves that the local search may look at: it ends there on large networks."""
TRIED, PAIRED = 32, 32
"""Of the changes that look best, as many are tried, and the pairs of as many."""


class Move(NamedTuple):
    """A group goes to another count: what that adds to the effect, and to every cost as a share of its bound."""

    name: str
    stop: int
    effect: float
    costs: Mapping[str, float]


class Stairs:
    """A walk over stops; `limits` are bounds in absolute numbers, `bypass` the effects of residual blocks that go."""

    def __init__(
        self,
        room: Room,
        curves: Mapping[str, ResponseCurve],
        limits: Mapping[str, float],
        bypass: Mapping[str, float] | None = None,
    ) -> None:
        self.room, self.limits = room, dict(limits)
        self.curves = {name: curves[name] for name in room.groups if name in curves}
        self.bypass = {name: effect for name, effect in (bypass or {}).items() if name in room.blocks}
        self.home = {group: block for block in self.bypass for group in room.blocks[block]}
        self.stops = {name: self._stops(name) for name in self.curves} | {block: [0, 1] for block in self.bypass}
        self.gone = {name: room.counts[name] for name in room.groups} | dict.fromkeys(self.bypass, 0)
        self.slope, self.asked = 0.0, 0
        self.costs = Increments(room, self.limits)
        self.near = self._near()
        self._known: dict[tuple[str, bool, tuple[int, ...]], list[Move]] = {}
        self._heights: dict[tuple[str, int], float] = {}

    def walk(self) -> dict[str, int]:
        """Units that go per group, beyond those that were gone before; all of a group in a block that goes.

        Raises:
            BudgetError: no moves are left, and a bound is still exceeded.
        """
        self._settle()
        self.asked = 0
        while self.asked < ASKED and self._change():
            pass
        settled, inside = self.room.settled(self._counts(self.gone)), self._emptied(self.gone)
        return {name: settled[name] - self.room.before[name] for name in (*self.curves, *inside)}

    def effect(self, taken: Counts) -> float:
        """The summed effect of the blocks that went, and on the curves as they were measured."""
        left = (name for name in self.curves if not self._bypassed(name))
        heights = sum(self._height(name, self.room.before[name] + taken[name]) for name in left)
        return heights + sum(self._height(block, self.gone[block]) for block in self.bypass)

    def _settle(self, held: Collection[str] = ()) -> None:
        """Removes until all bounds hold, then takes back what is left over; groups that are held stay as they are."""
        while excess := self._excess(self.gone):
            self._descend(excess, held)
        while self._give_back(held):
            pass

    def _descend(self, excess: Mapping[str, float], held: Collection[str]) -> None:
        moves = []
        for move in self._moves(ahead=True):
            saving = -sum(move.costs[kind] for kind in excess)
            if saving > SMALLEST and move.name not in held:
                moves.append((move.effect / saving, -saving, move.name, move.stop))
        if not moves:
            kind, limit = next(iter(excess.items()))
            left = self.room.amount(kind, self.room.settled(self._counts(self.gone)))
            raise BudgetError(f"no plan along the measured curves meets {kind} <= {limit:,.6g}: {left:,.6g} is left")
        slope, _, name, stop = min(moves)
        self.slope = max(self.slope, slope)
        self.gone[name] = stop

    def _give_back(self, held: Collection[str]) -> bool:
        """Takes back the removal that lowers the effect most within the bounds."""
        now = self._pressure(self.gone)
        backs = [m for m in self._moves(ahead=False) if m.effect < -SMALLEST and m.name not in held]
        for move in sorted(backs, key=lambda m: m.effect):
            fits = all(now[kind] + cost <= 1 + ROUNDING for kind, cost in move.costs.items())
            if fits and not self._excess({**self.gone, move.name: move.stop}):
                self.gone[move.name] = move.stop
                return True
        return False

    def _change(self) -> bool:
        """Sets one group to another stop, or two, and lets the others follow, where that lowers the effect."""
        moves = [*self._moves(ahead=True), *self._moves(ahead=False)]
        # At the price that savings have here, a move that looks best by itself most likely pays.
        moves.sort(key=lambda m: m.effect + self.slope * sum(m.costs.values()))
        pairs = ((a, b) for a, b in combinations(moves[:PAIRED], 2) if a.name != b.name)
        return any(self._pays(change) for change in chain(((m,) for m in moves[:TRIED]), pairs))

    def _pays(self, change: Sequence[Move]) -> bool:
        """Whether the effect is lower after a change, which then stands."""
        if self.asked >= ASKED:
            return False
        before, whole = dict(self.gone), self._total()
        self.gone |= {move.name: move.stop for move in change}
        with suppress(BudgetError):
            self._settle(held={move.name for move in change})
            if self._total() < whole - SMALLEST:
                return True
        self.gone = before
        return False

    def _total(self) -> float:
        left = (name for name in self.stops if not self._bypassed(name))
        return sum(self._height(name, self.gone[name]) for name in left)

    def _added(self, name: str, stop: int) -> float:
        """What a move adds to the effect."""
        here, after = self._height(name, self.gone[name]), self._height(name, stop)
        if name not in self.bypass:
            return after - here
        inside = sum(self._height(group, self.gone[group]) for group in self.room.blocks[name] if group in self.curves)
        return (after - here) - inside * (stop - self.gone[name])

    def _moves(self, *, ahead: bool) -> Iterator[Move]:
        """Every move from here, as it was found at the same counts near by."""
        for name, stops in self.stops.items():
            if self._bypassed(name):
                continue
            self.asked += len(stops)
            key = (name, ahead, tuple([self.gone[other] for other in self.near[name]]))
            found = self._known.get(key)
            if found is None:
                found = self._known[key] = self.moves_of(name, ahead)
            yield from found

    def moves_of(self, name: str, ahead: bool) -> list[Move]:
        """Every move of a group or block from here, in one direction."""
        here, now, found = self.gone[name], self._pressure(self.gone), []
        self.room.counts = self._counts(self.gone)
        most = 1 if name in self.bypass else here + self.room.left(self.room.groups[name])
        for stop in self.stops[name]:
            if stop != here and (stop > here) == ahead and stop <= most:
                after = self._pressure({**self.gone, name: stop})
                costs = {kind: after[kind] - now[kind] for kind in now}
                found.append(Move(name, stop, self._added(name, stop), costs))
        return found

    def _near(self) -> dict[str, tuple[str, ...]]:
        """Per group or block those that decide, with it, what its moves change and how far they go."""
        near = {name: set(others) for name, others in self.costs.near.items()}
        for block in self.bypass:
            inside = self.room.blocks[block]
            near[block] = {block, *inside}.union(*(near[group] for group in inside))
        homes = {name: {self.home[other] for other in others if other in self.home} for name, others in near.items()}
        return {name: tuple(sorted(others | homes[name])) for name, others in near.items()}

    def _stops(self, name: str) -> list[int]:
        """The counts that a group may have: where its width is a multiple, or where its curve was measured."""
        before = self.room.before[name]
        last = before + int(self.curves[name].removed[-1])
        stops = self.room.stops(name)
        if stops is None:
            stops = [before + int(n) for n in self.curves[name].removed]
        return sorted({before, *(n for n in stops if before <= n <= last)})

    def _height(self, name: str, count: int) -> float:
        if name in self.bypass:
            return self.bypass[name] * count
        found = self._heights.get((name, count))
        if found is None:
            curve = self.curves[name]
            found = float(np.interp(count - self.room.before[name], curve.removed, curve.effect))
            self._heights[name, count] = found
        return found

    def _bypassed(self, name: str) -> bool:
        """Whether a group lies in a block that is gone."""
        return name in self.home and bool(self.gone[self.home[name]])

    def _emptied(self, gone: Counts) -> dict[str, int]:
        return self.room.emptied(block for block in self.bypass if gone[block])

    def _counts(self, gone: Counts) -> dict[str, int]:
        """Units that are gone per group."""
        return {name: gone[name] for name in self.room.groups} | self._emptied(gone)

    def _pressure(self, gone: Counts) -> dict[str, float]:
        return self.costs.pressures(self._counts(gone))

    def _excess(self, gone: Counts) -> dict[str, float]:
        """The bounds that are exceeded when so much is gone."""
        amounts = self.costs.amounts(self._counts(gone))
        return {kind: limit for kind, limit in self.limits.items() if amounts[kind] > limit}
