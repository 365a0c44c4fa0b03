"""Widths from scores per unit: the same share of every group, or one ranking over all groups."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from whyprune.allocation.budget import Budget
from whyprune.allocation.constraints import Constraints
from whyprune.allocation.reach import steered
from whyprune.allocation.room import Counts, Room
from whyprune.effects.effects import Effects
from whyprune.errors import BudgetError
from whyprune.structure.network import Network
from whyprune.structure.plan import Plan, make_plan
from whyprune.structure.units import Unit

STEPS = 4096


def allocate_uniform(
    network: Network, effects: Effects, budget: Budget, *, constraints: Constraints | None = None
) -> Plan:
    """Removes the same share of every group, the lowest effects first; the smallest share that meets the budget.

    Where constraints keep a group from its share, it loses the next smaller number of units that they allow.

    Raises:
        BudgetError: no share does.
    """
    dense = network.cost()

    def walk(room: Room) -> dict[str, int]:
        def counts(share: int) -> dict[str, int]:
            return room.fill({g.name: round(len(g.units) * share / STEPS) for g in network.groups})

        shares = range(STEPS + 1)
        share = bisect_left(shares, True, key=lambda s: budget.met_by(room.cost(counts(s)), dense))
        if share > STEPS:
            raise BudgetError(
                f"no uniform share of units meets the budget {budget}: allocate with 'global' or 'curves'"
            )
        return counts(share)

    counts = steered(network, budget, constraints, walk)
    scores = effects.by_unit()
    return _plan(
        network, effects, budget, [u for g in network.groups for u in ascending(g.units, scores)[: counts[g.name]]]
    )


def allocate_global(
    network: Network,
    effects: Effects,
    budget: Budget,
    *,
    constraints: Constraints | None = None,
    removed: Sequence[Unit] = (),
    base: float = 0.0,
) -> Plan:
    """Removes the lowest effects wherever they are, until the budget holds.

    `removed` are units that are gone already: they stay in the plan, and `base` is the effect that their removal has.

    Scores of different groups have different scales; they are divided by their group's mean first, as DepGraph (Fang
    et al., CVPR 2023) does. Measured effects share one scale and are ranked as they are. Where widths are multiples,
    the units of a group go as soon as there are enough of them for the next multiple.

    Raises:
        BudgetError: the ranking runs out of units.
    """
    before = Counter(u.group for u in removed)
    left = [u for u in network.units if u not in set(removed)]
    dense, order = network.cost(), ascending(left, comparable(network, effects))

    def walk(room: Room) -> list[Unit]:
        path = [unit for unit in order if room.take(room.groups[unit.group], 1)]

        def counts(length: int) -> dict[str, int]:
            taken = Counter(u.group for u in path[:length])
            return room.settled({name: count + taken[name] for name, count in room.before.items()})

        lengths = range(len(path) + 1)
        length = bisect_left(lengths, True, key=lambda n: budget.met_by(room.cost(counts(n)), dense))
        if length > len(path):
            raise BudgetError(f"the budget {budget} cannot be met by removing units in order of their effect")
        return _first(path, {name: count - before[name] for name, count in counts(length).items()})

    chosen = steered(network, budget, constraints, walk, before=before)
    return _plan(network, effects, budget, chosen, removed, base)


def _first(units: Sequence[Unit], counts: Counts) -> list[Unit]:
    """Of each group the first `counts` units, in their order."""
    seen: Counter[str] = Counter()
    chosen = []
    for unit in units:
        if seen[unit.group] < counts[unit.group]:
            seen[unit.group] += 1
            chosen.append(unit)
    return chosen


def ascending(units: Sequence[Unit], scores: Mapping[str, float]) -> list[Unit]:
    """Units that have a score, the lowest first."""
    return sorted((u for u in units if u.name in scores), key=lambda u: scores[u.name])


def comparable(network: Network, effects: Effects) -> dict[str, float]:
    """Effects by unit, on one scale: scores of a criterion are divided by their group's mean."""
    scores = effects.by_unit()
    if effects.estimand != "score":
        return scores
    for group in network.groups:
        own = [scores[u.name] for u in group.units if u.name in scores]
        mean = float(np.mean(np.abs(own))) if own else 0.0
        if mean > 0:
            scores.update({u.name: scores[u.name] / mean for u in group.units if u.name in scores})
    return scores


def _plan(
    network: Network,
    effects: Effects,
    budget: Budget,
    units: Sequence[Unit],
    removed: Sequence[Unit] = (),
    base: float = 0.0,
) -> Plan:
    """Effects of single units add up to a prediction; it is an assumption that the joint measurement then checks."""
    predicted = None if effects.estimand == "score" else base + float(sum(effects[u] for u in units))
    every = [*removed, *units]
    return make_plan(network, every, method=effects.method, budget=budget.as_dict(), predicted=predicted)
