"""PreConfig: PreCrop's program in which layers may get wider as well (Cai et al., arXiv 2203.02549).

[R] The same objective, sum_l log p_l, with densities that may be above 1; [M] within budgets of MACs and parameters
together, so that an architecture is laid out anew at no more than its cost. [I] It is solved in the shares that groups
keep (`densities.geometric_program`); a budget that is not given is held at what the network has. [I] Widening comes
first: groups whose share is above 1 get as many units as that asks for, then the same program crops the wider network
to the budgets. As the wider network already has what the program wants of those groups, the optimum of the second is
that of the first, but for rounding. [I] No group gets wider than twice its width: in a network of residual blocks the
objective counts the stream at every layer, so that without a bound it trades all inner widths for a wider stream.
Groups that end at the bound are named in the report.
"""

import math
from collections.abc import Collection

from whyprune.allocation.budget import Budget
from whyprune.allocation.contract import Wish, allocator
from whyprune.allocation.densities import geometric_program, layers
from whyprune.allocation.objective import Objective
from whyprune.allocation.precrop import KINDS, PAPER, at_densities, limits_of
from whyprune.allocation.space import Point, Space

WIDEST = 2.0
"""Times its width that a group gets at most; less than `structure.widening.MOST_TIMES`, which files are held to."""


def wider(space: Space, budget: Budget, able: Collection[str]) -> Wish:
    """What gets wider before the crop, and the budget in absolute numbers, both kinds of it.

    Args:
        space: of the network as given.
        budget: on MACs, parameters or both.
        able: the groups that can be widened.

    Raises:
        MissingDependencyError: cvxpy is not installed.
        InputError: a budget on something else than MACs or parameters.
        BudgetError: the program is not solved.
    """
    dense = space.network.cost()
    limits = {kind: float(getattr(dense, kind)) for kind in KINDS} | limits_of(space, budget)
    most = {name: WIDEST if name in able else 1.0 for name in space.bounds.groups}
    shares = geometric_program(space, layers(space), limits, most)
    bounds = space.constraints.limits(space.network)
    gained = {name: _gain(space, name, share, bounds[name].multiple) for name, share in shares.items()}
    more = {name: count for name, count in gained.items() if count > 0}
    bound = [name for name in more if shares[name] > 0.999 * WIDEST]
    said = f"The program would widen {', '.join(bound)} by more: no group gets wider than {WIDEST:g} times its width."
    return Wish(more, Budget(**limits), (said,) if bound else ())


def _gain(space: Space, name: str, share: float, multiple: int) -> int:
    """Units up to the next whole one, and the next multiple of the group's width."""
    group = space.bounds.groups[name]
    units, most = len(group.units), round((WIDEST - 1) * len(group.units))
    gain = min(math.ceil(units * share - 1e-6) - units, most)
    if gain <= 0:
        return 0
    gain += -(group.width + gain) % multiple
    return gain if gain <= most else 0


@allocator(
    "preconfig",
    summary="densities from the architecture alone, by a geometric program in which groups may get wider first",
    guarantee="the shares are the optimum of sum log p up to twice the width, before they are rounded",
    cost="two convex programs and a second trace; needs cvxpy (extra `search`)",
    paper=PAPER,
    libraries=("cvxpy",),
    extra="search",
    widens=wider,
)
def preconfig(space: Space, objective: Objective, budget: Budget, *, seed: int = 0, progress: bool = False) -> Point:
    """The crop of a network that is wide enough; of any other, what `precrop-gp` gives.

    Raises:
        MissingDependencyError: cvxpy is not installed.
        InputError: a budget on something else than MACs or parameters.
        BudgetError: no widths on the way meet the budget, or the program is not solved.
    """
    found = layers(space)
    return at_densities(space, geometric_program(space, found, limits_of(space, budget)), found, budget)
