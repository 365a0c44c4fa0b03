"""Widening before a crop: what an allocation that widens is given first."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from whyprune.allocation import Budget, Constraints, Space
from whyprune.allocation.allocate import chosen_allocator, facts_of
from whyprune.methods import Method
from whyprune.structure.network import Network
from whyprune.structure.widen import widenable, widened
from whyprune.structure.widening import Widening


@dataclass(frozen=True)
class Preconfigured:
    """A network that is as wide as an allocation wants any group of it.

    Attributes:
        network: to crop.
        budget: in absolute numbers, where there was something to widen: ratios are to the network as it was given.
        widening: what was widened; None for nothing.
        notes: sentences for the report.
    """

    network: Network
    budget: Budget
    widening: Widening | None = None
    notes: list[str] = field(default_factory=list)


def preconfigured(
    network: Network,
    budget: Budget,
    method: Method,
    constraints: Constraints,
    trace: Callable[[nn.Module], Network],
    *,
    fresh: bool,
    seed: int,
) -> Preconfigured:
    """Widens a network where the method's allocation asks for that; else it stays as it is.

    Args:
        network: as given, prepared by the constraints.
        budget: what the result may cost.
        method: its allocation says what it would widen.
        constraints: that hold for the result.
        trace: from a widened model to its network, prepared as the first one.
        fresh: whether new weights are drawn; else units are copied, and the function stays the same.
        seed: of what is drawn.

    Raises:
        InputError: a budget that the allocation does not know.
    """
    wishes = None if method.allocation is None else facts_of(chosen_allocator(method.allocation)).widens
    if wishes is None:
        return Preconfigured(network, budget)
    kept = {name: reason for name, reason in widenable(network, fresh=fresh).items() if reason}
    able = frozenset(group.name for group in network.groups) - kept.keys()
    wish = wishes(Space(network, constraints), budget, able)
    notes = [f"{len(kept)} groups could not be widened, such as {n}: {r}." for n, r in list(kept.items())[:1]]
    if not wish.more:
        return Preconfigured(network, wish.budget, notes=[*notes, "No group was to get wider: nothing was widened."])
    found = widened(network, wish.more, fresh=fresh, seed=seed)
    sizes = {group.name: len(group.units) for group in network.groups}
    wider = ", ".join(f"{name} {sizes[name]} to {sizes[name] + count}" for name, count in wish.more.items())
    return Preconfigured(
        trace(found.model), wish.budget, found.widening, [*notes, f"Widened before the crop: {wider}.", *wish.notes]
    )
