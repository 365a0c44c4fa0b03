"""Widths from scores per unit: the same share of every group, or one ranking over all groups."""

from collections.abc import Mapping, Sequence

import numpy as np

from whyprune.allocation.budget import Budget
from whyprune.allocation.room import Room, check_reachable
from whyprune.causal.effects import Effects
from whyprune.errors import BudgetError
from whyprune.structure.network import Network
from whyprune.structure.plan import Plan, make_plan
from whyprune.structure.units import Group, Unit

STEPS = 4096


def allocate_uniform(network: Network, effects: Effects, budget: Budget) -> Plan:
    """Removes the same share of every group, the lowest effects first; the smallest share that meets the budget.

    Raises:
        BudgetError: no share does.
    """
    check_reachable(network, budget)
    ranked = {g: _ascending(g.units, effects.by_unit()) for g in network.groups}
    low, high = 0, STEPS
    if not _meets(network, budget, _uniform(network, high)):
        raise BudgetError(f"no uniform share of units meets the budget {budget}: allocate with 'global' or 'curves'")
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _meets(network, budget, _uniform(network, middle)) else (middle + 1, high)
    counts = _uniform(network, high)
    return _plan(network, effects, budget, [u for g, units in ranked.items() for u in units[: counts[g]]])


def allocate_global(network: Network, effects: Effects, budget: Budget) -> Plan:
    """Removes the lowest effects wherever they are, until the budget holds.

    Scores of different groups have different scales; they are divided by their group's mean first, as DepGraph (Fang
    et al., CVPR 2023) does. Measured effects share one scale and are ranked as they are.

    Raises:
        BudgetError: the ranking runs out of units.
    """
    check_reachable(network, budget)
    scores = _comparable(network, effects)
    room = Room(network)
    groups = {g.name: g for g in network.groups}
    dense, chosen = network.cost(), []
    for unit in _ascending(network.units, scores):
        if budget.met_by(network.cost.of_groups(room.counts), dense):
            break
        group = groups[unit.group]
        if room.left(group):
            room.counts[group] += 1
            chosen.append(unit)
    if not budget.met_by(network.cost.of_groups(room.counts), dense):
        raise BudgetError(f"the budget {budget} cannot be met by removing units in order of their effect")
    return _plan(network, effects, budget, chosen)


def _uniform(network: Network, share: int) -> dict[Group, int]:
    room = Room(network)
    for group in network.groups:
        room.counts[group] += min(room.left(group), round(len(group.units) * share / STEPS))
    return room.counts


def _meets(network: Network, budget: Budget, counts: Mapping[Group, int]) -> bool:
    return budget.met_by(network.cost.of_groups(counts), network.cost())


def _ascending(units: Sequence[Unit], scores: Mapping[str, float]) -> list[Unit]:
    return sorted((u for u in units if u.name in scores), key=lambda u: scores[u.name])


def _comparable(network: Network, effects: Effects) -> dict[str, float]:
    scores = effects.by_unit()
    if effects.estimand != "score":
        return scores
    for group in network.groups:
        own = [scores[u.name] for u in group.units if u.name in scores]
        mean = float(np.mean(np.abs(own))) if own else 0.0
        if mean > 0:
            scores.update({u.name: scores[u.name] / mean for u in group.units if u.name in scores})
    return scores


def _plan(network: Network, effects: Effects, budget: Budget, units: Sequence[Unit]) -> Plan:
    """Effects of single units add up to a prediction; it is an assumption that the joint measurement then checks."""
    predicted = None if effects.estimand == "score" else float(sum(effects[u] for u in units))
    return make_plan(network, units, method=effects.method, budget=budget.as_dict(), predicted=predicted)
