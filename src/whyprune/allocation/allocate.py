"""`allocate`: from effects and a budget to a plan, by the name of an allocation."""

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from whyprune.allocation.budget import Budget
from whyprune.allocation.constraints import Constraints
from whyprune.allocation.contract import Allocator, AllocatorFacts, NamedAllocator
from whyprune.allocation.objective import Evaluator, Objective, along_curves, along_scores
from whyprune.allocation.registry import ALLOCATORS
from whyprune.allocation.space import BLOCK, WIDTH, Space
from whyprune.effects.effects import Effects, ResponseCurve
from whyprune.errors import BudgetError, InputError
from whyprune.structure.network import Network
from whyprune.structure.plan import Plan
from whyprune.structure.state import State


def allocate(
    start: Network | State,
    effects: Effects,
    budget: Budget,
    *,
    allocation: str | Allocator | None = None,
    constraints: Constraints | None = None,
    base: float = 0.0,
    evaluator: Evaluator | None = None,
    search_plans: int | None = None,
    decided: Collection[str] = (),
    seed: int = 0,
    progress: bool = False,
) -> Plan:
    """The units to remove so that the budget holds.

    Args:
        start: the traced model, or the state, that `effects` are of.
        effects: higher means more harm when a unit goes.
        budget: what the pruned network may cost.
        allocation: `uniform`, `global`, `curves`, `savings`, `greedy`, ... or an allocator; default: see
            `default_allocation`.
        constraints: what must stay. Groups that go together have to be tied already, in the network that was estimated
            on.
        base: the joint effect of what a state lacks already.
        evaluator: measures points, for allocators that look at the network itself.
        search_plans: how many points such an allocator measures at most; None for its own default.
        decided: names of groups of which no further units go.
        seed: of everything drawn.
        progress: show a progress bar.

    Returns:
        The plan, which holds what a state lacks already.

    Raises:
        InputError: an unknown allocation, or one that needs what was not measured; constraints that name an unknown
            group, or groups that are not tied yet.
        BudgetError: no plan meets the budget; says the smallest reachable value.
    """
    state = State.of(start)
    _check_given(state, effects, budget)
    if constraints is not None and not isinstance(constraints, Constraints):
        raise InputError(f"constraints={constraints!r:.60}: give Constraints, such as Constraints(round_to=8)")
    if constraints is not None:
        state = replace(state, network=constraints.confirmed(state.network))
    kinds = (WIDTH, BLOCK) if effects.blocks else (WIDTH,)
    space = Space(state, constraints, kinds=kinds)
    if decided:
        space = space.bounded({name: space.start[name] for name in decided})
    chosen = chosen_allocator(allocation or default_allocation(effects, budget))
    facts = facts_of(chosen)
    check_search_plans(facts, search_plans, name_of(chosen))
    objective = objective_of(space, effects, facts, base=base, evaluator=evaluator)
    objective = replace(objective, plans=search_plans)
    return planned(objective, budget, chosen, method=effects.method, seed=seed, progress=progress)


def allocate_curves(
    start: Network | State,
    curves: Mapping[str, ResponseCurve],
    budget: Budget,
    *,
    blocks: Mapping[str, float] | None = None,
    base: float = 0.0,
    allocation: str | Allocator = "curves",
    constraints: Constraints | None = None,
    method: str = "causal",
) -> Plan:
    """The plan along response curves that are at hand already.

    Args:
        start: the traced model, or the state, that the curves are of.
        curves: group -> response curve.
        budget: what the result may cost.
        blocks: residual block -> the effect of bypassing it, of those that may go as a whole.
        base: the joint effect of what a state lacks already.
        allocation: who chooses; one that goes along curves.
        constraints: what must stay.
        method: recorded in the plan.

    Raises:
        BudgetError: no plan along the curves meets the budget.
    """
    space = Space(start, constraints, kinds=(WIDTH, BLOCK) if blocks else (WIDTH,))
    objective = along_curves(space, curves, blocks=blocks, base=base)
    return planned(objective, budget, chosen_allocator(allocation), method=method)


def planned(
    objective: Objective, budget: Budget, chosen: Allocator, *, method: str, seed: int = 0, progress: bool = False
) -> Plan:
    """The plan of the point that an allocator chooses; scores of a criterion predict nothing."""
    space = objective.space
    point = chosen(space, objective, budget, seed=seed, progress=progress)
    if not isinstance(point, Mapping) or (unknown := set(point) - set(space.variables)):
        said = f"variables that there are none of: {min(unknown)!r}" if isinstance(point, Mapping) else repr(point)
        raise InputError(f"the allocation {name_of(chosen)!r} gave {said}; give a point of space.variables")
    if broken := [name for name, stop in point.items() if not is_stop(stop)]:
        raise InputError(
            f"the allocation {name_of(chosen)!r} gave {broken[0]!r} the stop {point[broken[0]]!r:.60}; give how many "
            "units are gone, a whole number of 0 or more"
        )
    predicted = objective.predicted(point) if objective.promises else None
    plan = space.plan(point, objective.orders, method=method, budget=budget.as_dict(), predicted=predicted)
    _check_met(space, plan, budget, name_of(chosen))
    return plan


def is_stop(value: object) -> bool:
    """Whether a value can be a stop: a whole number, 0 or more."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 0)


def _check_given(state: State, effects: Effects, budget: Budget) -> None:
    """Refuses what no plan can be made from: no budget, effects of another network, or numbers that are none."""
    if not isinstance(budget, Budget):
        raise InputError(f"budget={budget!r}: give a Budget, such as Budget(macs=0.5)")
    if not isinstance(effects, Effects):
        raise InputError(f"effects is a {type(effects).__name__}: give what estimate gave")
    if effects.units and state.network.by_name.keys().isdisjoint(effects.units):
        raise InputError(f"the effects are of another network: this one has no unit {effects.units[0]!r}")
    if broken := [name for name, mean in zip(effects.units, effects.mean, strict=True) if not np.isfinite(mean)]:
        raise InputError(
            f"{effects.method!r} gives {len(broken)} of {len(effects.units)} units no finite number, such as "
            f"{broken[0]!r}"
        )


def _check_met(space: Space, plan: Plan, budget: Budget, allocation: str) -> None:
    """What is planned is within the budget, whoever chose it: an order that lacks units removes too few."""
    dense, cost = space.network.cost(), space.network.cost(space.network.select(plan.units))
    for kind, limit in budget.limits(dense).items():
        if getattr(cost, kind) > limit:
            raise BudgetError(
                f"allocation {allocation!r} ends at {getattr(cost, kind) / getattr(dense, kind):.4f} of {kind}, above "
                f"the budget {budget}: it falls short, or effects of some units are missing, or are of another state"
            )


def name_of(allocation: Allocator) -> str:
    """What an allocator is called."""
    return str(getattr(allocation, "name", getattr(allocation, "__name__", "of one's own")))


def objective_of(
    space: Space, effects: Effects, facts: AllocatorFacts, *, base: float = 0.0, evaluator: Evaluator | None = None
) -> Objective:
    """The objective that an allocator of these facts searches: along curves if it needs them, else along scores.

    Raises:
        InputError: it needs curves, and none were measured.
    """
    if facts.needs == "curves" and not effects.curves:
        raise InputError("allocation 'curves' needs response curves: estimate with method='curves'")
    if facts.needs == "evaluator" and evaluator is None:
        raise InputError("this allocation measures plans on the network: give images to measure them on")
    if facts.needs == "curves" or effects.estimand == "curve":
        return along_curves(space, effects.curves, blocks=effects.blocks, base=base, evaluator=evaluator)
    return along_scores(space, effects, base=base, evaluator=evaluator)


def check_search_plans(facts: AllocatorFacts, plans: int | None, who: str) -> None:
    """Refuses a number of plans that a search cannot do with, or that nothing uses.

    Raises:
        InputError: with the fewest it needs.
    """
    if plans is None:
        return
    if not facts.searches:
        raise InputError(f"search_plans={plans} does nothing with allocation {who!r}, which measures no plans")
    if isinstance(plans, bool) or not isinstance(plans, int) or plans < facts.fewest_plans:
        raise InputError(f"search_plans={plans!r}: allocation {who!r} needs {facts.fewest_plans} plans or more")


def default_allocation(effects: Effects, budget: Budget) -> str:
    """The allocation that suits what was measured.

    `curves` where response curves were measured, `savings` for costs that the network has to be priced for, else
    `global` for effects and for scores on one scale over all groups, and `uniform` for scores that have none.
    """
    if effects.curves:
        return "curves"
    if budget.priced:
        return "savings"
    return "uniform" if effects.estimand == "score" and not effects.across_groups else "global"


def chosen_allocator(allocation: str | Allocator) -> Allocator:
    """The allocator of a name, or the one given.

    Raises:
        InputError: there is none of that name.
    """
    return ALLOCATORS(allocation) if isinstance(allocation, str) else allocation


def facts_of(allocation: Allocator) -> AllocatorFacts:
    """What an allocator says of itself; a plain function is taken to need an order only."""
    if isinstance(allocation, NamedAllocator):
        return allocation.facts
    return AllocatorFacts(summary=(allocation.__doc__ or "an allocator of one's own").splitlines()[0].rstrip("."))
