"""Candidates of a search: vectors of the shares that groups keep, brought to the budget's edge and measured there."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from whyprune.allocation.budget import Budget
from whyprune.allocation.global_ranking import global_ranking
from whyprune.allocation.knapsack import searched
from whyprune.allocation.objective import Objective
from whyprune.allocation.shares import at_shares
from whyprune.allocation.space import Point, Space
from whyprune.errors import BudgetError, InputError
from whyprune.progress import track

Floats = NDArray[np.float64]
LEAST = 0.02
"""The smallest share a candidate asks for: a group of 50 units keeps one."""


def broken(plans: int) -> InputError:
    """The error of a search in which no network gave numbers."""
    return InputError(
        f"all {plans} plans that were measured gave NaN or infinite numbers, so none is better than another: look "
        "at the network's weights and outputs, or choose another fitness"
    )


def best_of(
    drawn: Iterable[Point | None], plans: int, objective: Objective, budget: Budget, *, progress: bool = False
) -> Point:
    """The point of least measured harm, the first of several.

    Args:
        drawn: points, one by one; None where one did not meet the budget.
        plans: how many there will be.
        objective: measures them.
        budget: that they meet, for the message.
        progress: show a progress bar.

    Raises:
        BudgetError: no point met the budget.
        InputError: none of the networks gave finite numbers.
    """
    best, least, met = None, np.inf, 0
    for point in track(drawn, "Measuring plans", plans, enabled=progress):
        if point is not None:
            met, harm = met + 1, objective.measured(point)
            if harm < least:
                best, least = point, harm
    if best is None:
        raise broken(met) if met else BudgetError(f"none of {plans} plans that were drawn meets the budget {budget}")
    return best


@dataclass
class Candidates:
    """Points of a space by vectors of shares, one number per group in the space's order.

    Attributes:
        space: of the plans.
        objective: measures them.
        budget: that all of them meet.
        advance: called once for every candidate that is measured or found impossible.
    """

    space: Space
    objective: Objective
    budget: Budget
    advance: Callable[[], None] = lambda: None
    _points: dict[tuple[float, ...], dict[str, int] | None] = field(default_factory=dict)

    @property
    def sizes(self) -> Floats:
        """Units of every group."""
        return np.array([len(group.units) for group in self.space.bounds.groups.values()], dtype=np.float64)

    def point(self, shares: Sequence[float] | Floats) -> dict[str, int] | None:
        """The point on the budget's edge in the direction of a vector of shares; None where there is none."""
        key = self._key(shares)
        if key not in self._points:
            wanted = dict(zip(self.space.bounds.groups, key, strict=True))
            try:
                self._points[key] = at_shares(
                    self.space, wanted, self.budget, weights=dict.fromkeys(wanted, 1.0), who="a candidate"
                )
            except BudgetError:
                self._points[key] = None
        return self._points[key]

    def harm(self, shares: Sequence[float] | Floats) -> float:
        """The measured harm of a candidate; infinite where none meets the budget, or the network gives no numbers."""
        point = self.point(shares)
        found = np.inf if point is None else self.objective.measured(point)
        self.advance()
        return float(found)

    def chosen(self, shares: Sequence[float] | Floats, harm: float, who: str) -> dict[str, int]:
        """The point of the best candidate, if there is one.

        Args:
            shares: of the best candidate.
            harm: of it.
            who: what candidates are called, for the message.

        Raises:
            BudgetError: no candidate met the budget.
            InputError: candidates met it, and none of the networks gave finite numbers.
        """
        if (point := self.point(shares)) is not None and np.isfinite(harm):
            return point
        met = sum(point is not None for point in self._points.values())
        if met:
            raise broken(met)
        raise BudgetError(f"no {who} meets the budget {self.budget}: choose another allocation")

    def shares(self, point: dict[str, int]) -> Floats:
        """The shares that groups keep at a point."""
        kept = [len(g.units) - point.get(n, self.space.start[n]) for n, g in self.space.bounds.groups.items()]
        return np.array(kept, dtype=np.float64) / self.sizes

    def start(self) -> Floats:
        """The shares that the objective itself asks for: along measured curves, or by one ranking of scores.

        The candidate of these shares is the very point, so that no search ends at a worse one.

        Raises:
            BudgetError: nothing meets the budget.
        """
        chosen = searched if self.objective.predict is None else global_ranking
        point = dict(chosen(self.space, self.objective, self.budget))
        shares = self.shares(point)
        self._points[self._key(shares)] = point
        return shares

    @staticmethod
    def _key(shares: Sequence[float] | Floats) -> tuple[float, ...]:
        return tuple(np.clip(shares, LEAST, 1.0).round(4).tolist())
