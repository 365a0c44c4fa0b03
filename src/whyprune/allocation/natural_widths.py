"""Natural widths: every group keeps as many units as its scorer finds distinct; shares are scaled to the budget."""

from whyprune.allocation.budget import Budget
from whyprune.allocation.contract import allocator
from whyprune.allocation.objective import Objective
from whyprune.allocation.shares import at_shares
from whyprune.allocation.space import Point, Space
from whyprune.errors import InputError


@allocator(
    "natural-widths",
    summary="as many units of every group as the scorer finds distinct, scaled to the budget",
    needs="natural_widths",
    guarantee="groups keep their shares' order; the budget is met by scaling all shares with one power",
)
def natural_widths(
    space: Space, objective: Objective, budget: Budget, *, seed: int = 0, progress: bool = False
) -> Point:
    """Widths in proportion to what a scorer finds distinct.

    Raises:
        InputError: the scorer finds no widths.
        BudgetError: no scaled widths meet the budget.
    """
    if not objective.natural_widths:
        raise InputError("allocation 'natural-widths' needs a scorer that finds widths, such as 'feature-clusters'")
    sizes = {name: len(group.units) for name, group in space.bounds.groups.items()}
    shares = {name: min(1.0, objective.natural_widths.get(name, size) / size) for name, size in sizes.items()}
    return at_shares(space, shares, budget, weights=dict.fromkeys(sizes, 1.0), who="natural-widths")
