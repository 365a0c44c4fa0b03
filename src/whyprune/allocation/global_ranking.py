"""One ranking of all units: the lowest effects go wherever they are, until the budget holds."""

from bisect import bisect_left
from collections import Counter

from whyprune.allocation.budget import Budget
from whyprune.allocation.contract import allocator
from whyprune.allocation.objective import Objective
from whyprune.allocation.reach import steered
from whyprune.allocation.space import Point, Space
from whyprune.errors import BudgetError


@allocator(
    "global",
    summary="one ranking over all units; scores of a criterion are first divided by their group's mean",
    guarantee="no unit stays that ranks below one that goes, unless its axis would be emptied or a constraint holds "
    "it; where widths are multiples, units go as soon as there are enough of them for one",
    paper="Fang et al., DepGraph, CVPR 2023 (the means)",
)
def global_ranking(
    space: Space,
    objective: Objective,
    budget: Budget,
    *,
    seed: int = 0,
    progress: bool = False,
) -> Point:
    """Removes units in the order of their scores.

    Raises:
        BudgetError: the ranking runs out of units.
    """
    left = [unit for unit in space.state.units if unit.name in objective.scores]
    order = sorted(left, key=lambda unit: objective.scores[unit.name])
    dense = space.network.cost()

    def walk(space: Space) -> Point:
        path, counts = [], dict(space.bounds.before)
        for unit in order:
            if space.bounds.left(counts, unit.group):
                counts[unit.group] += 1
                path.append(unit)

        def at(length: int) -> dict[str, int]:
            taken = Counter(u.group for u in path[:length])
            return space.bounds.rounded({name: count + taken[name] for name, count in space.bounds.before.items()})

        lengths = range(len(path) + 1)
        length = bisect_left(lengths, True, key=lambda n: budget.met_by(space.cost(at(n)), dense))
        if length > len(path):
            raise BudgetError(f"the budget {budget} cannot be met by removing units in order of their effect")
        return at(length)

    return steered(space, budget, walk)
