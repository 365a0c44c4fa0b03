"""Widths from measured response curves: spend the least effect per cost saved, until the budget holds.

Greedy on the lower convex hulls of the curves: optimal for costs that add up over groups, up to the last step
(the fractional knapsack); where widths multiply, savings are recomputed exactly after every step.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from whyprune.allocation.budget import Budget
from whyprune.allocation.room import Room, check_reachable
from whyprune.causal.effects import ResponseCurve
from whyprune.errors import BudgetError
from whyprune.structure.cost import Cost
from whyprune.structure.network import Network
from whyprune.structure.plan import Plan, make_plan
from whyprune.structure.units import Group, Unit

Point = tuple[float, float]


def allocate_curves(
    network: Network,
    curves: Mapping[str, ResponseCurve],
    budget: Budget,
    *,
    removed: Sequence[Unit] = (),
    base: float = 0.0,
    method: str = "causal",
) -> Plan:
    """The plan that meets the budget at the least summed effect along the curves.

    Args:
        network: a traced model.
        curves: group name -> response curve, conditional on `removed`.
        budget: what the result may cost.
        removed: units that are gone already; they stay in the plan.
        base: the effect that their removal has.
        method: recorded in the plan.

    Raises:
        BudgetError: no plan along the curves meets the budget.
    """
    check_reachable(network, budget)
    before: dict[str, int] = {}
    for unit in removed:
        before[unit.group] = before.get(unit.group, 0) + 1
    walk = _Walk(network, curves, budget, before)
    while not walk.done:
        walk.step()
    names = [u.name for u in removed]
    for name, curve in curves.items():
        names += curve.order[: walk.taken.get(name, 0)]
    return make_plan(network, names, method=method, budget=budget.as_dict(), predicted=base + walk.effect)


class _Walk:
    """The state of the greedy walk down the hulls."""

    def __init__(
        self, network: Network, curves: Mapping[str, ResponseCurve], budget: Budget, before: Mapping[str, int]
    ) -> None:
        self.network = network
        self.room = Room(network, before)
        self.limits = budget.limits(network.cost())
        self.groups = {g.name: g for g in network.groups if g.name in curves}
        self.curves = {name: _points(curves[name]) for name in self.groups}
        self.hulls = {name: lower_hull(points) for name, points in self.curves.items()}
        self.taken = dict.fromkeys(self.groups, 0)
        self.cost = network.cost.of_groups(self.room.counts)

    @property
    def done(self) -> bool:
        return not self._excess(self.cost)

    @property
    def effect(self) -> float:
        """The summed effect, on the curves as they were measured, not on their hulls."""
        return sum(_height(self.curves[name], count) for name, count in self.taken.items())

    def step(self) -> None:
        """Takes the cheapest move; of the last one only as much as is needed or does the least harm."""
        moves = [m for name in self.groups if (m := self._move(name)) is not None]
        if not moves:
            kind, limit = next(iter(self._excess(self.cost).items()))
            raise BudgetError(
                f"no plan along the measured curves meets {kind} <= {limit:,.0f}: {getattr(self.cost, kind):,} are left"
            )
        _, name, units = min(moves)
        units = self._enough(name, units)
        self.room.counts[self.groups[name]] += units
        self.taken[name] += units
        self.cost = self.network.cost.of_groups(self.room.counts)

    def _move(self, name: str) -> tuple[float, str, int] | None:
        """(effect per relative saving, group, units) of the group's next stretch of hull."""
        group, here = self.groups[name], self.taken[name]
        following = next(((x, y) for x, y in self.hulls[name] if x > here), None)
        if following is None:
            return None
        units = min(int(following[0]) - here, self.room.left(group))
        saving = self._saving(group, units) if units else 0.0
        if saving <= 0:
            return None
        slope = (following[1] - _height(self.hulls[name], here)) / (following[0] - here)
        return slope * units / saving, name, units

    def _saving(self, group: Group, units: int) -> float:
        """Savings relative to the bounds that are still exceeded."""
        after = self._cost_with(group, units)
        excess = self._excess(self.cost)
        return float(sum((getattr(self.cost, k) - getattr(after, k)) / excess[k] for k in excess))

    def _enough(self, name: str, units: int) -> int:
        """Where the budget holds within a move: the count with the least measured effect, the smallest of equals."""
        group, here = self.groups[name], self.taken[name]
        enough = [n for n in range(1, units + 1) if not self._excess(self._cost_with(group, n))]
        return min(enough, key=lambda n: _height(self.curves[name], here + n), default=units)

    def _cost_with(self, group: Group, units: int) -> Cost:
        return self.network.cost.of_groups({**self.room.counts, group: self.room.counts[group] + units})

    def _excess(self, cost: Cost) -> dict[str, float]:
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
