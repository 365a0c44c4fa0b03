"""Random search: points drawn at random, each measured on the network itself; the least measured harm wins.

The baseline that a search must beat with as many plans (Bergstra and Bengio, JMLR 2012 [P], for hyper-parameters). How
points are drawn is ours [I]: widths shrink along random pulls until the budget holds, so that all lie close to it.
"""

import numpy as np

from whyprune.allocation.budget import Budget
from whyprune.allocation.candidates import best_of
from whyprune.allocation.contract import allocator
from whyprune.allocation.objective import Objective
from whyprune.allocation.reach import check_reachable
from whyprune.allocation.space import Point, Space
from whyprune.methods.method import Method

PLANS, SHARES = 32, np.linspace(0, 1, 65)


@allocator(
    "random-search",
    summary="random widths within the budget, each plan measured; the least harm wins",
    needs="evaluator",
    guarantee="the best of the plans it measured, on the images it measured them on",
    paper="Bergstra & Bengio, JMLR 2012",
    plans=PLANS,
)
def random_search(
    space: Space, objective: Objective, budget: Budget, *, seed: int = 0, progress: bool = False
) -> Point:
    """The best of so many random points; raises `BudgetError` where none met the budget."""
    check_reachable(space, budget)
    rng, dense = np.random.default_rng(seed), space.network.cost()
    widths = [v for v in space if v.kind == "width"]

    def drawn() -> Point | None:
        pull = rng.random(len(widths))
        for share in SHARES:  # the least share of the pulls that meets the budget
            far = {
                v.name: round((v.stops[-1] - v.stops[0]) * min(1, 2 * share * pull[k])) for k, v in enumerate(widths)
            }
            point = space.bounds.rounded(space.bounds.filled(far))
            if budget.met_by(space.cost(point), dense):
                return point
        return None

    plans = objective.plans or PLANS
    return best_of((drawn() for _ in range(plans)), plans, objective, budget, progress=progress)


method = Method(name="random-search", scorer="magnitude-l2", allocation=random_search)
