"""Allocation: which units go, and how many where, so that a budget holds."""

from collections.abc import Callable

from whyprune.allocation.budget import Budget
from whyprune.allocation.curves import allocate_curves
from whyprune.allocation.ranking import allocate_global, allocate_uniform
from whyprune.allocation.room import Room, check_reachable
from whyprune.causal.effects import Effects
from whyprune.errors import InputError
from whyprune.structure.network import Network
from whyprune.structure.plan import Plan


def _curves(network: Network, effects: Effects, budget: Budget) -> Plan:
    return allocate_curves(network, effects.curves, budget, method=effects.method)


ALLOCATORS: dict[str, Callable[[Network, Effects, Budget], Plan]] = {
    "uniform": allocate_uniform,
    "global": allocate_global,
    "curves": _curves,
}


def allocate(network: Network, effects: Effects, budget: Budget, *, allocation: str | None = None) -> Plan:
    """The units to remove so that the budget holds.

    Args:
        network: the traced model that `effects` are of.
        effects: higher means more harm when a unit goes.
        budget: what the pruned network may cost.
        allocation: `uniform`, `global` or `curves`; default: `curves` where response curves were measured,
            `global` for measured effects, `uniform` for scores of a criterion.

    Raises:
        InputError: an unknown allocation, or `curves` without response curves.
        BudgetError: no plan meets the budget; says the smallest reachable value.
    """
    if allocation is None:
        allocation = "curves" if effects.curves else "uniform" if effects.estimand == "score" else "global"
    if allocation not in ALLOCATORS:
        raise InputError(f"no allocation named {allocation!r}: choose from {', '.join(ALLOCATORS)}")
    if allocation == "curves" and not effects.curves:
        raise InputError("allocation 'curves' needs response curves: estimate with method='curves'")
    return ALLOCATORS[allocation](network, effects, budget)


__all__ = [
    "ALLOCATORS",
    "Budget",
    "Room",
    "allocate",
    "allocate_curves",
    "allocate_global",
    "allocate_uniform",
    "check_reachable",
]
