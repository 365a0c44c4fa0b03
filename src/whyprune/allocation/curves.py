"""Widths from measured response curves: spend the least effect per cost saved, until the budget holds.

Greedy on the lower convex hulls of the curves: optimal for costs that add up over groups, up to the last step
(the fractional knapsack); where widths multiply, savings are recomputed exactly after every step. Costs that are
staircases, or the largest of many (latency, memory, energy), are walked as `stairs` says.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from whyprune.allocation.budget import Budget
from whyprune.allocation.constraints import Constraints
from whyprune.allocation.reach import steered
from whyprune.allocation.room import Counts, Room
from whyprune.allocation.stairs import Stairs
from whyprune.effects.effects import ResponseCurve
from whyprune.errors import BudgetError
from whyprune.structure.network import Network
from whyprune.structure.plan import Plan, make_plan
from whyprune.structure.units import Unit

Point = tuple[float, float]


def allocate_curves(
    network: Network,
    curves: Mapping[str, ResponseCurve],
    budget: Budget,
    *,
    removed: Sequence[Unit] = (),
    base: float = 0.0,
    bypass: Mapping[str, float] | None = None,
    method: str = "causal",
    constraints: Constraints | None = None,
) -> Plan:
    """The plan that meets the budget at the least summed effect along the curves.

    Args:
        network: a traced model.
        curves: group name -> response curve, conditional on `removed`.
        budget: what the result may cost.
        removed: units that are gone already; they stay in the plan.
        base: the effect that their removal has.
        bypass: residual block -> the effect of bypassing it, conditional on `removed`, of those that may go as a whole.
        method: recorded in the plan.
        constraints: what must stay; relative to the dense network, whatever is gone already.

    Raises:
        BudgetError: no plan along the curves meets the budget.
    """
    before = Counter(unit.group for unit in removed)
    ends = {
        g.name: before[g.name] + (int(curves[g.name].removed[-1]) if g.name in curves else 0) for g in network.groups
    }

    def walked(room: Room) -> tuple[dict[str, int], float]:
        if budget.priced or bypass:
            stairs = Stairs(room, curves, budget.limits(network.cost()), bypass)
            taken = stairs.walk()
            return taken, stairs.effect(taken)
        walk = _Walk(room, curves, budget)
        while not walk.done:
            walk.step()
        return walk.taken(), walk.effect(walk.taken())

    taken, effect = steered(network, budget, constraints, walked, before=before, most=ends, blocks=bool(bypass))
    names = [u.name for u in removed]
    for name, count in taken.items():
        units = network.group(name).units
        emptied = before[name] + count == len(units)
        names += [u.name for u in units] if emptied else curves[name].order[:count]
    return make_plan(network, names, method=method, budget=budget.as_dict(), predicted=base + effect)


class _Walk:
    """The state of the greedy walk down the hulls.

    It goes unit by unit where several groups share an axis; what is `settled` of it counts.
    """

    def __init__(self, room: Room, curves: Mapping[str, ResponseCurve], budget: Budget) -> None:
        self.room = room
        self.limits = budget.limits(room.network.cost())
        self.curves = {name: _points(curves[name]) for name in room.groups if name in curves}
        self.hulls = {name: lower_hull(self._stops(name)) for name in self.curves}

    @property
    def done(self) -> bool:
        return not self._excess(self.room.settled())

    def taken(self) -> dict[str, int]:
        """Units that go per group, beyond those that were gone before."""
        settled = self.room.settled()
        return {name: settled[name] - self.room.before[name] for name in self.curves}

    def effect(self, taken: Counts) -> float:
        """The summed effect, on the curves as they were measured, not on their hulls."""
        return sum(_height(self.curves[name], count) for name, count in taken.items())

    def step(self) -> None:
        """Takes the cheapest move; of the last one only as much as is needed or does the least harm."""
        excess = self._excess(self.room.settled())
        moves = [m for name in self.curves if (m := self._move(name, excess)) is not None]
        if not moves:
            kind, limit = next(iter(excess.items()))
            left = getattr(self.room.cost(self.room.settled()), kind)
            raise BudgetError(f"no plan along the measured curves meets {kind} <= {limit:,.0f}: {left:,} are left")
        _, name, units = min(moves)
        self.room.take(self.room.groups[name], self._enough(name, units))

    def _stops(self, name: str) -> list[Point]:
        """The points that a walk may stop at: those measured, or those at which the width is a multiple."""
        points, stops = self.curves[name], self.room.stops(name)
        if stops is None:
            return points
        return [(float(x), _height(points, x)) for x in (n - self.room.before[name] for n in stops)]

    def _here(self, name: str) -> int:
        return self.room.counts[name] - self.room.before[name]

    def _move(self, name: str, excess: Mapping[str, float]) -> tuple[float, str, int] | None:
        """(effect per relative saving, group, units) of the group's next stretch of hull."""
        here = self._here(name)
        following = next(((x, y) for x, y in self.hulls[name] if x > here), None)
        if following is None:
            return None
        units = min(int(following[0]) - here, self.room.left(self.room.groups[name]))
        saving = self._saving(name, units, excess) if units else 0.0
        if saving <= 0:
            return None
        slope = (following[1] - _height(self.hulls[name], here)) / (following[0] - here)
        return slope * units / saving, name, units

    def _saving(self, name: str, units: int, excess: Mapping[str, float]) -> float:
        """Savings relative to the bounds that are still exceeded."""
        now, after = self.room.cost(), self.room.cost(self._with(name, units))
        return float(sum((getattr(now, k) - getattr(after, k)) / limit for k, limit in excess.items()))

    def _enough(self, name: str, units: int) -> int:
        """Where the budget holds within a move: the count with the least measured effect, the smallest of equals."""
        here = self._here(name)
        enough = [n for n in range(1, units + 1) if not self._excess(self.room.settled(self._with(name, n)))]
        return min(enough, key=lambda n: _height(self.curves[name], here + n), default=units)

    def _with(self, name: str, units: int) -> dict[str, int]:
        return {**self.room.counts, name: self.room.counts[name] + units}

    def _excess(self, counts: Counts) -> dict[str, float]:
        """The bounds that these counts exceed."""
        cost = self.room.cost(counts)
        return {kind: limit for kind, limit in self.limits.items() if getattr(cost, kind) > limit}


def _points(curve: ResponseCurve) -> list[Point]:
    return list(zip(curve.removed.astype(np.float64).tolist(), curve.effect.tolist(), strict=True))


def lower_hull(points: Sequence[Point]) -> list[Point]:
    """The lower convex hull of points with ascending x (Andrew's monotone chain)."""
    hull: list[Point] = []
    for x, y in points:
        while len(hull) > 1 and (hull[-1][1] - hull[-2][1]) * (x - hull[-1][0]) >= (y - hull[-1][1]) * (
            hull[-1][0] - hull[-2][0]
        ):
            hull.pop()
        hull.append((x, y))
    return hull


def _height(points: Sequence[Point], x: float) -> float:
    xs, ys = zip(*points, strict=True)
    return float(np.interp(x, xs, ys))
