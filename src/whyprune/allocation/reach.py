"""What the smallest reachable network costs, and walks that end there if they must."""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from whyprune.allocation.budget import Budget
from whyprune.allocation.constraints import Constraints
from whyprune.allocation.room import Counts, Room
from whyprune.errors import BudgetError
from whyprune.structure.network import Network

Found = TypeVar("Found")
UNITS = {"latency": "ms", "memory": "bytes of memory", "energy": "mJ"}


def check_reachable(
    network: Network, budget: Budget, constraints: Constraints | None = None, *, blocks: bool = False
) -> None:
    """Says so if even the smallest network is above the budget; with `blocks` one without its residual blocks.

    Raises:
        BudgetError: with the smallest reachable value.
        InputError: the constraints name an unknown group.
    """
    dense, room = network.cost(), Room(network, constraints=constraints)
    bounded = str(constraints or "")
    within = f"within the constraints ({bounded})" if bounded else "with one channel left everywhere"
    if constraints is not None and constraints.stops:
        within = f"at the widths in the device's table{f', {within},' if bounded else ''}"
    for kind, limit in budget.limits(dense).items():
        least = smallest(room, kind, limit, blocks=blocks)
        reachable, whole = getattr(room.cost(least), kind), getattr(dense, kind)
        if reachable > limit:
            smallest_ratio = reachable / whole + 5e-5
            raise BudgetError(
                f"the budget {kind}={budget.as_dict()[kind]:g} cannot be met: {within} the network still has "
                f"{_shown(reachable)} of {_shown(whole)} {UNITS.get(kind, kind)}; "
                f"the smallest reachable ratio is {smallest_ratio:.4f}"
            )


def smallest(room: Room, kind: str, limit: float, *, blocks: bool = False) -> dict[str, int]:
    """Units that go per group where as much `kind` goes as may, or enough for the limit.

    What saves most goes first. That is the least wherever groups do not compete for an axis. Where they do, groups are
    held back one at a time as long as that saves: the least for two groups on an axis, close to it for more. With
    `blocks` all residual blocks go that may. Where a price says that narrow layers cost more than wide ones, groups are
    set to what costs least, one by one.
    """
    emptied = room.emptied(room.blocks) if blocks else {}

    def value(counts: Counts) -> float:
        return room.amount(kind, {**counts, **emptied})

    order = sorted(room.groups, key=lambda name: value({**room.before, name: room.before[name] + 1}))
    held = {name: len(room.groups[name].units) for name in order}
    best = room.fill(held)
    while value(best) > limit:
        trials = [{**held, name: units} for name, most in room.rivals().items() for units in range(most)]
        held = min(trials, key=lambda trial: value(room.fill(trial)), default=held)
        found = room.fill(held)
        if value(found) >= value(best):
            break
        best = found
    if value(best) > limit and any(price.kind == kind for price in room.network.cost.prices):
        best = _cheapest(room, best, value)
    return {**best, **emptied}


def _cheapest(room: Room, counts: dict[str, int], value: Callable[[Counts], float]) -> dict[str, int]:
    """Counts at which no other count of one group, no larger than here, costs less."""
    best, most, changed = counts, dict(counts), True
    while changed:
        changed = False
        for name, last in most.items():
            stops = room.stops(name) or range(room.before[name], last + 1)
            trials = [room.settled({**best, name: count}) for count in stops if count <= last]
            found = min(trials, key=value, default=best)
            if value(found) < value(best):
                best, changed = found, True
    return best


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def steered(
    network: Network,
    budget: Budget,
    constraints: Constraints | None,
    walk: Callable[[Room], Found],
    *,
    before: Counts | None = None,
    most: Counts | None = None,
    blocks: bool = False,
) -> Found:
    """The result of a walk; where its own order ends above the budget, of one held to the smallest network.

    Raises:
        BudgetError: neither meets the budget.
    """
    check_reachable(network, budget, constraints, blocks=blocks)
    with suppress(BudgetError):
        return walk(Room(network, before, constraints=constraints, most=most))
    room, dense = Room(network, before, constraints=constraints, most=most), network.cost()
    ends = [smallest(room, kind, limit, blocks=blocks) for kind, limit in budget.limits(dense).items()]
    end = next((counts for counts in ends if budget.met_by(room.cost(counts), dense)), ends[0])
    return walk(Room(network, before, constraints=constraints, most=end))
