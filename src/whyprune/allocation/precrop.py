"""PreCrop: how much of every group stays, from the architecture alone (Cai et al., arXiv 2203.02549; see `densities`).

It was made for networks before training, whose channels are alike. For a trained network it says how many units stay in
every group, and a scorer says which.
"""

from collections.abc import Mapping

import numpy as np

from whyprune.allocation.budget import Budget
from whyprune.allocation.contract import allocator
from whyprune.allocation.densities import Layer, geometric_program, layers, shares_of_densities, water_filling
from whyprune.allocation.objective import Objective
from whyprune.allocation.shares import at_shares
from whyprune.allocation.space import Point, Space
from whyprune.errors import InputError

KINDS = ("macs", "params")
PAPER = "Cai et al., arXiv 2203.02549"


@allocator(
    "precrop",
    summary="densities from the architecture alone, by water-filling; a group keeps the root of its layers' density",
    guarantee="the densities are the optimum of sum log p for independent layers; the budget is met by scaling them",
    cost="none to speak of",
    paper=PAPER,
)
def precrop(space: Space, objective: Objective, budget: Budget, *, seed: int = 0, progress: bool = False) -> Point:
    """Widths from closed-form densities.

    Raises:
        InputError: a budget on something else than MACs or parameters.
        BudgetError: no widths on the way meet the budget.
    """
    found, limits = layers(space), limits_of(space, budget)
    costs = [np.array([layer.costs[kind] for layer in found]) for kind in limits]
    whole = [sum(c) for c in costs]
    dense = space.network.cost()
    allowed = [limit / getattr(dense, kind) * total for (kind, limit), total in zip(limits.items(), whole, strict=True)]
    shares = shares_of_densities(space, found, water_filling(costs, allowed)) if found else {}
    return at_densities(space, shares, found, budget)


@allocator(
    "precrop-gp",
    summary="densities from the architecture alone, by a geometric program that keeps residual ties",
    guarantee="the shares are the optimum of sum log p before they are rounded to whole units",
    cost="one convex program",
    paper=PAPER,
    extra="search",
    libraries=("cvxpy",),
)
def precrop_gp(space: Space, objective: Objective, budget: Budget, *, seed: int = 0, progress: bool = False) -> Point:
    """Widths from the geometric program.

    Raises:
        MissingDependencyError: cvxpy is not installed.
        InputError: a budget on something else than MACs or parameters.
        BudgetError: no widths on the way meet the budget, or the program is not solved.
    """
    found, limits = layers(space), limits_of(space, budget)
    return at_densities(space, geometric_program(space, found, limits), found, budget)


def limits_of(space: Space, budget: Budget) -> dict[str, float]:
    """The bounds in absolute numbers.

    Raises:
        InputError: a budget on something else than MACs or parameters.
    """
    limits = budget.limits(space.network.cost())
    if other := [kind for kind in limits if kind not in KINDS]:
        raise InputError(f"precrop knows budgets of {' and '.join(KINDS)}, not of {other[0]!r}: choose 'savings'")
    return limits


def at_densities(space: Space, shares: Mapping[str, float], found: list[Layer], budget: Budget) -> Point:
    """Scaled to the budget; a group counts for as many sides of layers as it is on."""
    sides = {
        name: float(sum((parameter, axis) in layer.axes for layer in found for parameter, axis, _ in group.axes))
        for name, group in space.bounds.groups.items()
    }
    return at_shares(space, shares, budget, weights=sides, who="precrop")
