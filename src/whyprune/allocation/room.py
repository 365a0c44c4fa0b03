"""How many units every group may still lose, and what the smallest reachable network costs."""

from collections.abc import Mapping

from whyprune.allocation.budget import Budget
from whyprune.errors import BudgetError
from whyprune.structure.network import Network
from whyprune.structure.units import Group


class Room:
    """Counts of removed units per group; no axis may lose its last channel."""

    def __init__(self, network: Network, counts: Mapping[str, int] | None = None) -> None:
        """Starts from `counts` units already gone per group."""
        self.network = network
        self.counts = {group: int((counts or {}).get(group.name, 0)) for group in network.groups}
        self._sizes = {
            (parameter, axis): network.cost.shapes[parameter][axis]
            for group in network.groups
            for parameter, axis, _ in group.axes
        }
        self._users: dict[tuple[str, int], list[tuple[Group, int]]] = {}
        for group in network.groups:
            for parameter, axis, per_unit in group.axes:
                self._users.setdefault((parameter, axis), []).append((group, per_unit))

    def left(self, group: Group) -> int:
        """How many more units of a group may go."""
        free = len(group.units) - self.counts[group]
        for parameter, axis, per_unit in group.axes:
            gone = sum(self.counts[g] * n for g, n in self._users[parameter, axis])
            free = min(free, (self._sizes[parameter, axis] - gone - 1) // per_unit)
        return max(free, 0)


def check_reachable(network: Network, budget: Budget) -> None:
    """Says so if even the smallest network is above the budget.

    Raises:
        BudgetError: with the smallest reachable value.
    """
    room = Room(network)
    for group in network.groups:
        room.counts[group] += room.left(group)
    dense, smallest = network.cost(), network.cost.of_groups(room.counts)
    for kind, limit in budget.limits(dense).items():
        reachable, whole = getattr(smallest, kind), getattr(dense, kind)
        if reachable > limit:
            raise BudgetError(
                f"the budget {kind}={budget.as_dict()[kind]:g} cannot be met: with one channel left everywhere the "
                f"network still has {reachable:,} of {whole:,} {kind}; the smallest reachable ratio is "
                f"{reachable / whole + 5e-5:.4f}"
            )
