"""From the shares that groups should keep to the point that meets a budget."""

from bisect import bisect_left
from collections.abc import Mapping

import numpy as np

from whyprune.allocation.budget import Budget
from whyprune.allocation.reach import steered
from whyprune.allocation.space import Space
from whyprune.errors import BudgetError

STEPS, FURTHEST = 4096, 1024.0
"""Powers from 1 / 1024 to 1024 in steps of 0.3%: finer than one unit of any group in use."""
POWERS = np.concatenate([[0.0], np.geomspace(1 / FURTHEST, FURTHEST, STEPS)])
NEARLY_WHOLE = 0.995
"""Where others do not suffice, whole groups give as well; at power 1 one of up to 100 units still gives none."""


def at_shares(
    space: Space, shares: Mapping[str, float], budget: Budget, *, weights: Mapping[str, float], who: str
) -> dict[str, int]:
    """The first point on the way shares ** t, t growing from 0, that meets the budget; then what fits comes back.

    Args:
        space: of the plans.
        shares: group -> the share of its units that should stay; those not named stay whole as long as others suffice.
        budget: what the point may cost.
        weights: group -> how much a relative gain of its width counts when units come back.
        who: the allocation, for the message.

    Raises:
        BudgetError: no point on the way meets the budget.
    """
    dense, groups = space.network.cost(), space.bounds.groups
    kept = {name: min(shares.get(name, 1.0), NEARLY_WHOLE) for name in groups}

    def walk(space: Space) -> dict[str, int]:
        def at(step: int) -> dict[str, int]:
            gone = {n: round(len(g.units) * (1 - kept[n] ** POWERS[step])) for n, g in groups.items()}
            amounts = {name: max(0, count - space.start[name]) for name, count in gone.items()}
            return space.bounds.rounded(space.bounds.filled(amounts))

        step = bisect_left(range(STEPS + 1), True, key=lambda s: budget.met_by(space.cost(at(s)), dense))
        if step > STEPS:
            raise BudgetError(f"the shares of {who!r} do not meet the budget {budget}: allocate with 'global'")
        return _given_back(space, at(step), weights, budget)

    return dict(steered(space, budget, walk))


def _given_back(space: Space, point: dict[str, int], weights: Mapping[str, float], budget: Budget) -> dict[str, int]:
    """Units come back while the budget holds, those of the group whose width matters most first."""
    dense, point = space.network.cost(), dict(point)

    def gain(name: str) -> float:
        kept = len(space.bounds.groups[name].units) - point[name]
        return weights.get(name, 0.0) * float(np.log1p(1 / max(kept, 0.5)))

    tried: set[str] = set()
    while left := [n for n in point if point[n] > space.start[n] and n not in tried]:
        name = max(left, key=gain)
        trial = {**point, name: max(stop for stop in space.variables[name].stops if stop < point[name])}
        if space.is_feasible(trial) and budget.met_by(space.cost(trial), dense):
            point = trial
        else:
            tried.add(name)
    return point
