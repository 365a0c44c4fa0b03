"""`Search`: from stop to stop of all variables, to the least effect within bounds of any kind.

Costs may be smooth (MACs), staircases (latency: one channel fewer often saves
nothing, and eight save all that sixteen could) or the largest of many (memory). So a move goes to any stop ahead, not
only to the next; its worth is its effect per saving, found anew after every move. Greedy moves end below the budget;
what is left over is given back. After that one variable, or a pair, is set to another stop and held there, and the
others follow, greedily again, as long as that lowers the effect: a local search, which on small networks is compared
with all plans there are. Stops are the points at which curves were measured, or the multiples that constraints ask for;
where widths are free, units are given back between two stops as well.

The multiple-choice knapsack problem: Sinha and Zoltners (1979), whose greedy walk down convex hulls is `greedy`. Moves
to far stops, the way back and the local search are ours [I].
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, combinations
from typing import NamedTuple

import numpy as np

from whyprune.allocation.increments import Increments
from whyprune.allocation.objective import Objective
from whyprune.allocation.space import Point, Space
from whyprune.errors import BudgetError
from whyprune.progress import Progress

SMALLEST = 1e-12
ROUNDING = 1e-9
MOST_MOVES = 300_000
"""Moves that the local search may look at: it ends there on large networks, after seconds."""
MOST_STOPS = 32
"""Of a curve that is known at more points, as many are gone to; units are given back between them."""
TRIED, PAIRED = 32, 32
"""Of the changes that look best, as many are tried, and the pairs of as many."""


class Move(NamedTuple):
    """A variable goes to another stop: what that adds to the effect, and to every cost as a share of its bound."""

    name: str
    stop: int
    effect: float
    costs: Mapping[str, float]


class Search:
    """A walk over the stops of all variables; `limits` are bounds in absolute numbers."""

    def __init__(self, space: Space, objective: Objective, limits: Mapping[str, float]) -> None:
        self.space, self.objective, self.limits = space, objective, dict(limits)
        widths = [name for name in space.bounds.groups if name in objective.curves]
        self.blocks = [name for name in space.inside if name in objective.blocks]
        self.home = {group: block for block in self.blocks for group in space.inside[block]}
        self.free = {n: self._measured(n) for n in widths if space.bounds.multiples(n) is None}
        self.stops = {name: self._stops(name) for name in widths} | {block: [0, 1] for block in self.blocks}
        self.point: dict[str, int] = dict(space.start)
        self.slope, self.looked_at = 0.0, 0
        self.costs = Increments(space, self.limits)
        self.near = self._near()
        self._known: dict[tuple[str, bool, tuple[int, ...]], list[Move]] = {}
        self._heights: dict[tuple[str, int], float] = {}

    def run(self, progress: bool = False) -> Point:
        """The point that the search ends at, rounded.

        Raises:
            BudgetError: no moves are left, and a bound is still exceeded.
        """
        self._meet()
        self.looked_at = shown = 0
        with Progress(progress) as bars:
            bar = bars.add("Searching for a plan", MOST_MOVES)
            while self.looked_at < MOST_MOVES and self._change():
                bars.advance(bar, self.looked_at - shown)
                shown = self.looked_at
        self._take_back()  # what the last change held
        return self.space.rounded(self.point)

    def _meet(self, held: Collection[str] = ()) -> None:
        """Removes until all bounds hold, then takes back what is left over; variables that are held stay."""
        while excess := self._excess(self.point):
            self._descend(excess, held)
        self._take_back(held)

    def _take_back(self, held: Collection[str] = ()) -> None:
        while self._give_back(held) or self._give_units_back(held):
            pass

    def _descend(self, excess: Mapping[str, float], held: Collection[str]) -> None:
        moves = self._worthwhile(self._moves(ahead=True), excess, held)
        if not moves:  # groups on one axis reach a multiple only together: then what counts is not rounded
            moves = self._worthwhile(self._unrounded_moves(excess), excess, held)
        if not moves:
            kind, limit = next(iter(excess.items()))
            left = self.space.amount(kind, self.space.rounded(self.point))
            raise BudgetError(f"no plan along the measured curves meets {kind} <= {limit:,.6g}: {left:,.6g} is left")
        slope, _, name, stop = min(moves)
        self.slope = max(self.slope, slope)
        self.point[name] = stop

    @staticmethod
    def _worthwhile(
        moves: Iterable[Move], excess: Mapping[str, float], held: Collection[str]
    ) -> list[tuple[float, float, str, int]]:
        """(effect per saving, minus the saving, variable, stop) of moves that save something of what is exceeded."""
        found = []
        for move in moves:
            saving = -sum(move.costs[kind] for kind in excess)
            if saving > SMALLEST and move.name not in held:
                found.append((move.effect / saving, -saving, move.name, move.stop))
        return found

    def _unrounded_moves(self, excess: Mapping[str, float]) -> Iterator[Move]:
        """Moves to the next stop ahead, with what they change where widths are not rounded."""
        counts = self.space.counts(self.point)
        now = {kind: self.space.pressure(kind, self.point, limit) for kind, limit in excess.items()}
        for name, stops in self.stops.items():
            stop = next((s for s in stops if s > self.point[name]), None)
            free = name in self.blocks or (stop or 0) <= self.point[name] + self.space.bounds.left(counts, name)
            if stop is None or not free or self._is_idle(name):
                continue
            after = {kind: self.space.pressure(kind, {**self.point, name: stop}, excess[kind]) for kind in excess}
            costs = {kind: (after[kind] - now[kind]) / limit for kind, limit in excess.items()}
            yield Move(name, stop, self._added(name, stop), costs)

    def _give_back(self, held: Collection[str]) -> bool:
        """Takes back the removal that lowers the effect most within the bounds."""
        now = self.costs.pressures(self.point)
        backs = [m for m in self._moves(ahead=False) if m.effect < -SMALLEST and m.name not in held]
        for move in sorted(backs, key=lambda m: m.effect):
            fits = all(now[kind] + cost <= 1 + ROUNDING for kind, cost in move.costs.items())
            if fits and not self._excess({**self.point, move.name: move.stop}):
                self.point[move.name] = move.stop
                return True
        return False

    def _give_units_back(self, held: Collection[str]) -> bool:
        """Of the widths that may stop anywhere, gives back as many units of one as lower the effect most."""
        best = (-SMALLEST, "", 0)
        for name, stops in self.stops.items():
            here = self.point[name]
            last = max((stop for stop in stops if stop < here), default=here)
            if last == here or name in held or name not in self.free or self._is_idle(name):
                continue
            fits = bisect_left(range(last, here), True, key=lambda n: not self._excess({**self.point, name: n})) + last
            between = (n for n in self.free[name] if fits <= n < here)
            gains = ((self._height(name, n) - self._height(name, here), name, n) for n in {fits, *between} - {here})
            best = min([best, *gains])
        if best[1]:
            self.point[best[1]] = best[2]
        return bool(best[1])

    def _change(self) -> bool:
        """Sets one variable to another stop, or two, and lets the others follow, where that lowers the effect."""
        moves = [*self._moves(ahead=True), *self._moves(ahead=False)]
        # At the price that savings have here, a move that looks best by itself most likely pays.
        moves.sort(key=lambda m: m.effect + self.slope * sum(m.costs.values()))
        pairs = ((a, b) for a, b in combinations(moves[:PAIRED], 2) if a.name != b.name)
        return any(self._pays(change) for change in chain(((m,) for m in moves[:TRIED]), pairs))

    def _pays(self, change: Sequence[Move]) -> bool:
        """Whether the effect is lower after a change, which then stands."""
        if self.looked_at >= MOST_MOVES:
            return False
        before, whole = dict(self.point), self._total()
        self.point |= {move.name: move.stop for move in change}
        with suppress(BudgetError):
            self._meet(held={move.name for move in change})
            if self._total() < whole - SMALLEST:
                return True
        self.point = before
        return False

    def _total(self) -> float:
        return sum(self._height(name, self.point[name]) for name in self.stops if not self._is_idle(name))

    def _added(self, name: str, stop: int) -> float:
        """What a move adds to the effect."""
        here, after = self._height(name, self.point[name]), self._height(name, stop)
        if name not in self.blocks:
            return after - here
        inside = sum(self._height(group, self.point[group]) for group in self.space.inside[name] if group in self.stops)
        return (after - here) - inside * (stop - self.point[name])

    def _moves(self, *, ahead: bool) -> Iterator[Move]:
        """Every move from here, as it was found at the same stops near by."""
        for name, stops in self.stops.items():
            if self._is_idle(name):
                continue
            self.looked_at += len(stops)
            key = (name, ahead, tuple([self.point[other] for other in self.near[name]]))
            found = self._known.get(key)
            if found is None:
                found = self._known[key] = self.moves_of(name, ahead)
            yield from found

    def moves_of(self, name: str, ahead: bool) -> list[Move]:
        """Every move of a variable from here, in one direction."""
        here, now, found = self.point[name], self.costs.pressures(self.point), []
        counts = self.space.counts(self.point)
        most = 1 if name in self.blocks else here + self.space.bounds.left(counts, name)
        for stop in self.stops[name]:
            if stop != here and (stop > here) == ahead and stop <= most:
                after = self.costs.pressures({**self.point, name: stop})
                costs = {kind: after[kind] - now[kind] for kind in now}
                found.append(Move(name, stop, self._added(name, stop), costs))
        return found

    def _near(self) -> dict[str, tuple[str, ...]]:
        """Per variable those that decide, with it, what its moves change and how far they go."""
        near = {name: set(others) for name, others in self.costs.near.items()}
        for block in self.blocks:
            inside = self.space.inside[block]
            near[block] = {block, *inside}.union(*(near[group] for group in inside))
        homes = {name: {self.home[other] for other in others if other in self.home} for name, others in near.items()}
        return {name: tuple(sorted(others | homes[name])) for name, others in near.items()}

    def _measured(self, name: str) -> list[int]:
        """The counts at which a group's curve was measured."""
        return [self.space.start[name] + int(n) for n in self.objective.curves[name].removed]

    def _stops(self, name: str) -> list[int]:
        """The counts that moves go to: where a group's width is a multiple, or where its curve was measured."""
        before, measured = self.space.start[name], self._measured(name)
        stops = self.space.bounds.multiples(name)
        if stops is None:
            places = np.linspace(0, len(measured) - 1, min(len(measured), MOST_STOPS)).round().astype(int)
            stops = [measured[k] for k in places]
        return sorted({before, *(n for n in stops if before <= n <= measured[-1])})

    def _height(self, name: str, stop: int) -> float:
        found = self._heights.get((name, stop))
        if found is None:
            found = self._heights[name, stop] = self.objective.height(name, stop)
        return found

    def _is_idle(self, name: str) -> bool:
        """Whether a group lies in a block that is gone."""
        return name in self.home and bool(self.point[self.home[name]])

    def _excess(self, point: Point) -> dict[str, float]:
        """The bounds that are exceeded at a point."""
        amounts = self.costs.amounts(point)
        return {kind: limit for kind, limit in self.limits.items() if amounts[kind] > limit}
