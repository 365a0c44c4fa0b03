"""The multiple-choice knapsack: one stop for every variable, the least effect within the budget.

One search serves all kinds of budgets (`search`); what differs is what it goes along: response curves that were
measured, or sums of single effects. The multiple-choice knapsack problem: Sinha and Zoltners (1979).
"""

from whyprune.allocation.budget import Budget
from whyprune.allocation.contract import allocator
from whyprune.allocation.objective import Objective
from whyprune.allocation.reach import steered
from whyprune.allocation.search import Search
from whyprune.allocation.space import BLOCK, WIDTH, Point, Space
from whyprune.errors import InputError


@allocator(
    "curves",
    summary="greedy moves to any measured width, then a local search: the least effect along the curves",
    needs="curves",
    kinds=(WIDTH, BLOCK),
    guarantee="on small networks within 2% of the best of all plans along the curves, and mostly that plan",
    paper="multiple-choice knapsack, Sinha & Zoltners 1979 (the greedy part)",
)
def along_measured_curves(
    space: Space,
    objective: Objective,
    budget: Budget,
    *,
    seed: int = 0,
    progress: bool = False,
) -> Point:
    """The point along response curves with the least summed effect that the search finds.

    Raises:
        InputError: no curves were measured.
        BudgetError: no point along the curves meets the budget.
    """
    if objective.predict is not None:
        raise InputError("allocation 'curves' needs response curves: estimate with method='curves'")
    return searched(space, objective, budget, progress=progress)


@allocator(
    "savings",
    summary="the same search where the effects of a group's units are taken to add up",
    kinds=(WIDTH, BLOCK),
    guarantee="that of `curves`, for sums of single effects, which say least where little is left",
)
def savings(
    space: Space,
    objective: Objective,
    budget: Budget,
    *,
    seed: int = 0,
    progress: bool = False,
) -> Point:
    """The point with the least summed effect of units per cost saved.

    Raises:
        BudgetError: no point meets the budget.
    """
    return searched(space, objective, budget, progress=progress)


def searched(space: Space, objective: Objective, budget: Budget, *, progress: bool = False) -> Point:
    """The point that the search ends at.

    Raises:
        BudgetError: no point along the objective's curves meets the budget.
    """
    limits = budget.limits(space.network.cost())

    def walk(space: Space) -> Point:
        return Search(space, objective, limits).run(progress)

    return steered(space.bounded(objective.ends), budget, walk)
