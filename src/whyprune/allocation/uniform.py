"""The same share of every group, the lowest effects first: the smallest share that meets the budget."""

from bisect import bisect_left

from whyprune.allocation.budget import Budget
from whyprune.allocation.contract import allocator
from whyprune.allocation.objective import Objective
from whyprune.allocation.reach import steered
from whyprune.allocation.space import Point, Space
from whyprune.errors import BudgetError

STEPS = 4096
"""Shares are tried in steps of 1 / 4096, finer than one unit of any group in use."""


@allocator(
    "uniform",
    summary="the same share of every group",
    guarantee="the smallest share that meets the budget; where constraints keep a group from its share, it loses the "
    "next smaller number of units that they allow",
)
def uniform(
    space: Space,
    objective: Objective,
    budget: Budget,
    *,
    seed: int = 0,
    progress: bool = False,
) -> Point:
    """Every group loses the same share of its dense width.

    Raises:
        BudgetError: no share meets the budget.
    """
    dense = space.network.cost()
    groups = space.bounds.groups

    def walk(space: Space) -> Point:
        def at(step: int) -> dict[str, int]:
            amounts = {n: round(len(g.units) * step / STEPS) - space.start[n] for n, g in groups.items()}
            return space.bounds.rounded(space.bounds.filled({name: max(0, count) for name, count in amounts.items()}))

        steps = range(STEPS + 1)
        step = bisect_left(steps, True, key=lambda s: budget.met_by(space.cost(at(s)), dense))
        if step > STEPS:
            raise BudgetError(
                f"no uniform share of units meets the budget {budget}: allocate with 'global' or 'curves'"
            )
        return at(step)

    return steered(space, budget, walk)
