"""Allocation: which units go, and how many where, so that a budget holds."""

from typing import Protocol

from whyprune.allocation.budget import Budget
from whyprune.allocation.constraints import Constraints
from whyprune.allocation.curves import allocate_curves
from whyprune.allocation.ranking import allocate_global, allocate_uniform
from whyprune.allocation.reach import check_reachable
from whyprune.allocation.room import Room
from whyprune.allocation.savings import allocate_savings
from whyprune.effects.effects import Effects
from whyprune.errors import InputError
from whyprune.structure.network import Network
from whyprune.structure.plan import Plan


def _curves(network: Network, effects: Effects, budget: Budget, *, constraints: Constraints | None = None) -> Plan:
    return allocate_curves(network, effects.curves, budget, method=effects.method, constraints=constraints)


class Allocator(Protocol):
    """Picks units within the constraints so that the budget holds, or raises a `BudgetError`."""

    def __call__(
        self, network: Network, effects: Effects, budget: Budget, *, constraints: Constraints | None = None
    ) -> Plan:
        """The plan."""
        ...


ALLOCATORS: dict[str, Allocator] = {
    "uniform": allocate_uniform,
    "global": allocate_global,
    "curves": _curves,
    "savings": allocate_savings,
}


def allocate(
    network: Network,
    effects: Effects,
    budget: Budget,
    *,
    allocation: str | None = None,
    constraints: Constraints | None = None,
) -> Plan:
    """The units to remove so that the budget holds.

    Args:
        network: the traced model that `effects` are of.
        effects: higher means more harm when a unit goes.
        budget: what the pruned network may cost.
        allocation: `uniform`, `global`, `curves` or `savings`; default: `curves` where response curves were measured,
            `savings` for what the network has to be priced for, else `global` for measured effects, `uniform` for
            scores of a criterion.
        constraints: what must stay. Groups that go together have to be tied already, in the network that was estimated
            on.

    Raises:
        InputError: an unknown allocation, or `curves` without response curves; constraints that name an unknown
            group, or groups that are not tied yet.
        BudgetError: no plan meets the budget; says the smallest reachable value.
    """
    if allocation is None:
        plain = "uniform" if effects.estimand == "score" else "global"
        allocation = "curves" if effects.curves else "savings" if budget.priced else plain
    if allocation not in ALLOCATORS:
        raise InputError(f"no allocation named {allocation!r}: choose from {', '.join(ALLOCATORS)}")
    if allocation == "curves" and not effects.curves:
        raise InputError("allocation 'curves' needs response curves: estimate with method='curves'")
    if constraints is not None:
        network = constraints.confirmed(network)
    return ALLOCATORS[allocation](network, effects, budget, constraints=constraints)


__all__ = [
    "ALLOCATORS",
    "Allocator",
    "Budget",
    "Room",
    "allocate",
    "allocate_curves",
    "allocate_global",
    "allocate_savings",
    "allocate_uniform",
    "check_reachable",
]
