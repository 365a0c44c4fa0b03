"""What the smallest reachable network costs, and walks that end there if they must."""

import math
from collections.abc import Callable
from contextlib import suppress

from whyprune.allocation.bounds import Counts
from whyprune.allocation.budget import Budget
from whyprune.allocation.space import Point, Space
from whyprune.errors import BudgetError
from whyprune.structure.hints import kept_because

UNITS = {"latency": "ms", "memory": "bytes of memory", "energy": "mJ"}


def check_reachable(space: Space, budget: Budget) -> None:
    """Says so if even the smallest network of a space is above the budget.

    Raises:
        BudgetError: with the smallest reachable value.
    """
    dense, constraints = space.network.cost(), space.constraints
    bounded = str(constraints)
    within = f"within the constraints ({bounded})" if bounded else "with one channel left everywhere"
    if constraints.stops:
        within = f"at the widths in the device's table{f', {within},' if bounded else ''}"
    for kind, limit in budget.limits(dense).items():
        reachable, whole = getattr(space.cost(smallest(space, kind, limit)), kind), getattr(dense, kind)
        if reachable > limit:
            asked = f"the budget {kind}={budget.as_dict()[kind]:g} cannot be met"
            left = f"the network still has {_shown(reachable)} of {_shown(whole)} {UNITS.get(kind, kind)}"
            if reachable >= whole:
                raise BudgetError(f"{asked}: {_nothing_goes(space, UNITS.get(kind, kind), bounded)}; {left}")
            ratio = reachable / whole
            digits = 4 if ratio < 0.999 else 6  # rounded up: what is named is reached
            smallest_ratio = math.ceil(10**digits * ratio) / 10**digits
            kept = kept_because(space.network.refusals)
            raise BudgetError(
                f"{asked}: {within} {left}; the smallest reachable ratio is {smallest_ratio:.{digits}f}"
                + (f"; kept whole are {kept}" if kept else "")
            )


def _nothing_goes(space: Space, what: str, bounded: str) -> str:
    """Why a network keeps all it has."""
    network = space.network
    name = type(network.model).__name__
    if network.units and bounded:
        return f"the constraints ({bounded}) leave nothing of {name} that could go: loosen them"
    if network.units:
        return f"nothing that can be removed from {name} lowers its {what}: give a budget of another kind"
    if kept := kept_because(network.refusals):
        return f"nothing can be removed from {name}: kept whole are {kept}"
    return (
        f"nothing can be removed from {name}: no channels lie between two layers that can be cut, and what it takes "
        "and gives stays as it is"
    )


def smallest(space: Space, kind: str, limit: float) -> dict[str, int]:
    """A point at which as much `kind` goes as may, or enough for the limit.

    All blocks go that are variables. What saves most goes first. That is the least wherever groups do not compete for
    an axis. Where they do, groups are held back one at a time as long as that saves: the least for two groups on an
    axis, close to it for more. Where a price says that narrow layers cost more than wide ones, groups are set to what
    costs least, one by one.
    """
    bounds, emptied = space.bounds, dict.fromkeys(space.inside, 1)

    def value(counts: Counts) -> float:
        return space.amount(kind, {**counts, **emptied})

    order = sorted(bounds.groups, key=lambda name: value({**bounds.before, name: bounds.before[name] + 1}))
    held = {name: len(bounds.groups[name].units) for name in order}
    best = bounds.rounded(bounds.filled(held))
    while value(best) > limit:
        rivals = bounds.rivals(bounds.filled(held))
        trials = [{**held, name: units} for name, most in rivals.items() for units in range(most)]
        held = min(trials, key=lambda trial: value(bounds.rounded(bounds.filled(trial))), default=held)
        found = bounds.rounded(bounds.filled(held))
        if value(found) >= value(best):
            break
        best = found
    if value(best) > limit and any(price.kind == kind for price in space.network.cost.prices):
        best = _cheapest(space, best, value)
    return {**best, **emptied}


def _cheapest(space: Space, counts: dict[str, int], value: Callable[[Counts], float]) -> dict[str, int]:
    """Counts at which no other count of one group, no larger than here, costs less."""
    bounds, best, most, changed = space.bounds, counts, dict(counts), True
    while changed:
        changed = False
        for name, last in most.items():
            stops = bounds.multiples(name) or range(bounds.before[name], last + 1)
            trials = [bounds.rounded({**best, name: count}) for count in stops if count <= last]
            found = min(trials, key=value, default=best)
            if value(found) < value(best):
                best, changed = found, True
    return best


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def steered(space: Space, budget: Budget, walk: Callable[[Space], Point]) -> Point:
    """The result of a walk; where its own order ends above the budget, of one held to the smallest network.

    Raises:
        BudgetError: neither meets the budget.
    """
    check_reachable(Space(space.network, space.constraints, kinds=space.kinds), budget)
    with suppress(BudgetError):
        return walk(space)
    dense = space.network.cost()
    ends = [smallest(space, kind, limit) for kind, limit in budget.limits(dense).items()]
    end = next((point for point in ends if budget.met_by(space.cost(point), dense)), ends[0])
    return walk(space.bounded({name: count for name, count in end.items() if name in space.bounds.groups}))
