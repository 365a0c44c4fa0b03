"""PreCrop: how much of every group stays, from the architecture alone (Cai et al., arXiv 2203.02549; see `densities`).

It was made for networks before training, whose channels are alike. For a trained network it says how many units stay in
every group, and a scorer says which.
"""

from bisect import bisect_left
from collections.abc import Mapping

import numpy as np

from whyprune.allocation.budget import Budget
from whyprune.allocation.contract import allocator
from whyprune.allocation.densities import Layer, geometric_program, layers, shares_of_densities, water_filling
from whyprune.allocation.objective import Objective
from whyprune.allocation.reach import steered
from whyprune.allocation.space import Point, Space
from whyprune.errors import BudgetError, InputError

STEPS, FURTHEST = 4096, 4.0
"""Shares are taken to powers up to 4 in 4096 steps: finer than one unit, and far enough for what rounding costs."""
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
    found, limits = layers(space), _limits(space, budget)
    costs = [np.array([layer.costs[kind] for layer in found]) for kind in limits]
    whole = [sum(c) for c in costs]
    dense = space.network.cost()
    allowed = [limit / getattr(dense, kind) * total for (kind, limit), total in zip(limits.items(), whole, strict=True)]
    shares = shares_of_densities(space, found, water_filling(costs, allowed)) if found else {}
    return _at_shares(space, shares, found, budget)


@allocator(
    "precrop-gp",
    summary="densities from the architecture alone, by a geometric program that keeps residual ties",
    guarantee="the shares are the optimum of sum log p before they are rounded to whole units",
    cost="one convex program; needs cvxpy (extra `search`)",
    paper=PAPER,
)
def precrop_gp(space: Space, objective: Objective, budget: Budget, *, seed: int = 0, progress: bool = False) -> Point:
    """Widths from the geometric program.

    Raises:
        MissingDependencyError: cvxpy is not installed.
        InputError: a budget on something else than MACs or parameters.
        BudgetError: no widths on the way meet the budget, or the program is not solved.
    """
    found, limits = layers(space), _limits(space, budget)
    return _at_shares(space, geometric_program(space, found, limits), found, budget)


def _limits(space: Space, budget: Budget) -> dict[str, float]:
    limits = budget.limits(space.network.cost())
    if other := [kind for kind in limits if kind not in KINDS]:
        raise InputError(f"precrop knows budgets of {' and '.join(KINDS)}, not of {other[0]!r}: choose 'savings'")
    return limits


def _at_shares(space: Space, shares: Mapping[str, float], found: list[Layer], budget: Budget) -> Point:
    """The first point on the way shares ** t, t growing from 0, that meets the budget; then what fits comes back."""
    dense, groups = space.network.cost(), space.bounds.groups

    def walk(space: Space) -> Point:
        def at(step: int) -> dict[str, int]:
            power = FURTHEST * step / STEPS
            gone = {n: round(len(g.units) * (1 - shares.get(n, 1.0) ** power)) for n, g in groups.items()}
            amounts = {name: max(0, count - space.start[name]) for name, count in gone.items()}
            return space.bounds.rounded(space.bounds.filled(amounts))

        step = bisect_left(range(STEPS + 1), True, key=lambda s: budget.met_by(space.cost(at(s)), dense))
        if step > STEPS:
            raise BudgetError(
                f"precrop's densities do not meet the budget {budget}: allocate with 'global' or 'curves'"
            )
        return _given_back(space, at(step), found, budget)

    return steered(space, budget, walk)


def _given_back(space: Space, point: dict[str, int], found: list[Layer], budget: Budget) -> dict[str, int]:
    """Units come back while the budget holds, those of the group whose share matters most for the objective first."""
    dense, point = space.network.cost(), dict(point)
    sides = {n: sum((p, a) in layer.axes for layer in found for p, a, _ in g.axes)
             for n, g in space.bounds.groups.items()}  # fmt: skip

    def gain(name: str) -> float:
        kept = len(space.bounds.groups[name].units) - point[name]
        return sides[name] * float(np.log1p(1 / max(kept, 0.5)))

    tried: set[str] = set()
    while left := [n for n in point if point[n] > space.start[n] and n not in tried]:
        name = max(left, key=gain)
        trial = {**point, name: max(stop for stop in space.variables[name].stops if stop < point[name])}
        if space.is_feasible(trial) and budget.met_by(space.cost(trial), dense):
            point = trial
        else:
            tried.add(name)
    return point
