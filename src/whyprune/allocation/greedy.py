"""Greedy descent along the lower convex hulls of curves: the least effect per cost saved, until the budget holds.

Optimal up to its last step for costs that add up over groups (the fractional knapsack; Sinha and Zoltners 1979); where
widths multiply, savings are recomputed exactly after every step. It decides widths only, and takes a fraction of the
time that `curves` takes, whose moves reach further.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from whyprune.allocation.bounds import Counts
from whyprune.allocation.budget import Budget
from whyprune.allocation.contract import allocator
from whyprune.allocation.objective import Objective
from whyprune.allocation.reach import steered
from whyprune.allocation.space import Point, Space
from whyprune.errors import BudgetError

HullPoint = tuple[float, float]


@allocator(
    "greedy",
    summary="walks down the lower hulls of the curves, least effect per saving first",
    guarantee="optimal up to its last step where costs add up over groups; no local search",
    paper="Sinha & Zoltners 1979",
)
def greedy(
    space: Space,
    objective: Objective,
    budget: Budget,
    *,
    seed: int = 0,
    progress: bool = False,
) -> Point:
    """Removes units from the group whose curve rises least for what it saves.

    Raises:
        BudgetError: no point along the curves meets the budget.
    """

    def walk(space: Space) -> Point:
        found = _Walk(space, objective, budget)
        while not found.done:
            found.step()
        return space.bounds.rounded(found.counts)

    return steered(space.bounded(objective.ends), budget, walk)


class _Walk:
    """The state of the descent: counts of removed units, not rounded; their rounded counts are what counts."""

    def __init__(self, space: Space, objective: Objective, budget: Budget) -> None:
        self.space, self.objective = space, objective
        self.counts: dict[str, int] = dict(space.bounds.before)
        self.limits = budget.limits(space.network.cost())
        self.hulls = {name: lower_hull(self._stops(name)) for name in objective.curves}

    @property
    def done(self) -> bool:
        return not self._excess(self.counts)

    def step(self) -> None:
        """Takes the cheapest move; of the last one only as much as is needed or does the least harm."""
        excess = self._excess(self.counts)
        moves = [m for name in self.hulls if (m := self._move(name, excess)) is not None]
        if not moves:
            kind, limit = next(iter(excess.items()))
            left = self.space.amount(kind, self.space.bounds.rounded(self.counts))
            raise BudgetError(f"no plan along the measured curves meets {kind} <= {limit:,.0f}: {left:,} are left")
        _, name, units = min(moves)
        self.counts[name] += self._enough(name, units)

    def _stops(self, name: str) -> list[HullPoint]:
        """The points that a walk may stop at: those measured, or those at which the width is a multiple."""
        curve, before = self.objective.curves[name], self.space.start[name]
        multiples = self.space.bounds.multiples(name)
        stops = [before + int(n) for n in curve.removed] if multiples is None else multiples
        return [(float(stop), self.objective.height(name, stop)) for stop in stops]

    def _move(self, name: str, excess: Mapping[str, float]) -> tuple[float, str, int] | None:
        """(effect per relative saving, group, units) of the group's next stretch of hull."""
        here = self.counts[name]
        following = next(((x, y) for x, y in self.hulls[name] if x > here), None)
        if following is None:
            return None
        units = min(int(following[0]) - here, self.space.bounds.left(self.counts, name))
        saving = self._saving(name, units, excess) if units else 0.0
        if saving <= 0:
            return None
        slope = (following[1] - _height(self.hulls[name], here)) / (following[0] - here)
        return slope * units / saving, name, units

    def _saving(self, name: str, units: int, excess: Mapping[str, float]) -> float:
        """Savings relative to the bounds that are still exceeded."""
        now, after = self.space.cost(self.counts), self.space.cost(self._with(name, units))
        return float(sum((getattr(now, k) - getattr(after, k)) / limit for k, limit in excess.items()))

    def _enough(self, name: str, units: int) -> int:
        """Where the budget holds within a move: the count with the least predicted effect, the smallest of equals."""
        here = self.counts[name]
        enough = [n for n in range(1, units + 1) if not self._excess(self._with(name, n))]
        return min(enough, key=lambda n: self.objective.height(name, here + n), default=units)

    def _with(self, name: str, units: int) -> dict[str, int]:
        return {**self.counts, name: self.counts[name] + units}

    def _excess(self, counts: Counts) -> dict[str, float]:
        """The bounds that these counts, rounded, exceed."""
        cost = self.space.cost(self.space.bounds.rounded(counts))
        return {kind: limit for kind, limit in self.limits.items() if getattr(cost, kind) > limit}


def lower_hull(points: Sequence[HullPoint]) -> list[HullPoint]:
    """The lower convex hull of points with ascending x (Andrew's monotone chain)."""
    hull: list[HullPoint] = []
    for x, y in points:
        while len(hull) > 1 and (hull[-1][1] - hull[-2][1]) * (x - hull[-1][0]) >= (y - hull[-1][1]) * (
            hull[-1][0] - hull[-2][0]
        ):
            hull.pop()
        hull.append((x, y))
    return hull


def _height(points: Sequence[HullPoint], x: float) -> float:
    xs, ys = zip(*points, strict=True)
    return float(np.interp(x, xs, ys))
