"""Widths from scores per unit by what they save: the least effect per cost, the effects of a group taken to add up.

A ranking of units alone does not see that some save much and others nothing, which is what matters on a device.
"""

import numpy as np

from whyprune.allocation.budget import Budget
from whyprune.allocation.constraints import Constraints
from whyprune.allocation.curves import allocate_curves
from whyprune.allocation.ranking import ascending, comparable
from whyprune.effects.effects import Effects, ResponseCurve
from whyprune.structure.network import Network
from whyprune.structure.plan import Plan


def allocate_savings(
    network: Network, effects: Effects, budget: Budget, *, constraints: Constraints | None = None
) -> Plan:
    """Removes what has the least effect per cost saved, the lowest effects of a group first.

    Scores of a criterion are divided by their group's mean first, as `allocate_global` does.

    Raises:
        BudgetError: no plan meets the budget.
    """
    plan = allocate_curves(network, added(network, effects), budget, method=effects.method, constraints=constraints)
    return plan.model_copy(update={"predicted": None}) if effects.estimand == "score" else plan


def added(network: Network, effects: Effects) -> dict[str, ResponseCurve]:
    """Response curves as they would be if the effects of units added up; none below zero, none to the last unit."""
    scores = comparable(network, effects)
    curves = {}
    for group in network.groups:
        order = ascending(group.units, scores)[: len(group.units) - 1]
        effect = np.cumsum([0.0, *(max(scores[u.name], 0.0) for u in order)])
        counts = np.arange(len(effect))
        curves[group.name] = ResponseCurve(group.name, tuple(u.name for u in order), counts, effect, 0 * effect)
    return curves
