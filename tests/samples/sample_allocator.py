"""`widest-first`: takes units from the widest group, one at a time, as an allocator of one's own."""

from whyprune.allocation import Budget, Objective, Point, Space, allocator, check_reachable
from whyprune.errors import BudgetError


@allocator("widest-first", summary="one unit at a time from the group that has most left", guarantee="meets the budget")
def widest_first(space: Space, objective: Objective, budget: Budget, *, seed: int = 0, progress: bool = False) -> Point:
    """Widths become alike; effects only say which channel of a group goes."""
    check_reachable(space, budget)
    counts, dense = dict(space.bounds.before), space.network.cost()
    while not budget.met_by(space.cost(space.bounds.rounded(counts)), dense):
        free = [name for name in counts if space.bounds.left(counts, name)]
        if not free:
            raise BudgetError(f"no plan of even widths meets the budget {budget}")
        counts[max(free, key=lambda name: len(space.bounds.groups[name].units) - counts[name])] += 1
    return space.bounds.rounded(counts)
