"""Whatever is allocated keeps to the constraints, and meets every budget that an enumeration of all widths meets."""

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocation.made_up import COSTS, plan_along, some_effects
from structure.networks import traced
from whyprune.allocation import Budget, Space, allocate, check_reachable
from whyprune.allocation.constraints import Constraints
from whyprune.effects.effects import ResponseCurve
from whyprune.errors import BudgetError, InputError
from whyprune.structure.network import Network

ALLOCATIONS = ("uniform", "global", "curves")


@cache
def shared_axis() -> Network:
    """A layer of eight channels in two groups: three that another layer reads alone, and two pairs; one is kept.

    Made up from a plain network, so that both groups lie on one first axis.
    """
    network = traced("mlp")
    whole, rest = network.groups
    read = ("0.weight", "0.bias", "3.weight")
    alone = [cut_to(unit, read) for unit in whole.units[:3]]
    pairs = [cut_to(one, read[:2], other) for one, other in (whole.units[3:5], whole.units[5:7])]
    groups = []
    for number, units in enumerate((alone, pairs), start=1):
        name = f"0/{number}"
        axes = tuple((s.parameter, s.axis, len(s.indices)) for s in units[0].slices)
        named = tuple(replace(u, name=f"{name}:{u.index}", group=name) for u in units)
        groups.append(replace(whole, name=name, axes=axes, units=named))
    return replace(network, groups=(*groups, rest))


def cut_to(unit, parameters, other=None):
    """A unit with its slices of some parameters only, together with those of another one."""
    indices = (unit.index,) if other is None else (unit.index, other.index)
    return replace(unit, slices=tuple(s._replace(indices=indices) for s in unit.slices if s.parameter in parameters))


NETWORKS = {
    "shared axis": shared_axis,
    **{name: lambda name=name: traced(name) for name in ("residual", "concat", "grouped", "pad shortcut", "flatten")},
}


def allowed(network: Network, counts: dict[str, int], constraints: Constraints) -> bool:
    """The constraints, read off the parameters that a layer's module writes: an oracle that knows no axes of groups."""
    gone: dict[tuple[str, int], int] = {}
    for group in network.groups:
        for parameter, axis, per_unit in group.axes:
            gone[parameter, axis] = gone.get((parameter, axis), 0) + counts[group.name] * per_unit
    if any(count >= network.cost.shapes[parameter][axis] for (parameter, axis), count in gone.items()):
        return False
    for group in network.groups:
        weight = group.name.partition("/")[0] + ".weight"
        dense = network.cost.shapes[weight][0]
        width = dense - gone[weight, 0]
        multiple, least, share = (
            value.get(group.name, default) if isinstance(value, dict) else default if value is None else value
            for value, default in ((constraints.round_to, 1), (constraints.min_width, 1), (constraints.max_share, 1.0))
        )
        if width < min(dense, least) or counts[group.name] > share * len(group.units) + 1e-6:
            return False
        if width != dense and width % multiple:
            return False
    return True


@cache
def every_width(name: str):
    """All counts of removed units, with the cost of each."""
    network = NETWORKS[name]()
    ranges = [range(len(g.units) + 1) for g in network.groups]
    names = [g.name for g in network.groups]
    found = []
    for counts in itertools.product(*ranges):
        by_name = dict(zip(names, counts, strict=True))
        if allowed(network, by_name, Constraints()):
            found.append((by_name, network.cost.of_groups(dict(zip(network.groups, counts, strict=True)))))
    return found


@st.composite
def constraints_for(draw, network):
    def one_or_each(values):
        each = st.dictionaries(st.sampled_from([g.name for g in network.groups]), values)
        return draw(st.one_of(st.none(), values, each))

    return Constraints(
        round_to=one_or_each(st.integers(1, 5)),
        min_width=one_or_each(st.integers(1, 8)),
        max_share=one_or_each(st.floats(0, 1)),
    )


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), kind=st.sampled_from(COSTS))
def test_the_smallest_reachable_cost_is_the_least_of_all_widths(name, data, kind):
    network = NETWORKS[name]()
    constraints = data.draw(constraints_for(network))
    least = min(getattr(cost, kind) for counts, cost in every_width(name) if allowed(network, counts, constraints))
    for limit in (1e-9, least - 1):
        with pytest.raises(BudgetError, match=f"still has {least:,} of {getattr(network.cost(), kind):,} {kind}"):
            check_reachable(Space(network, constraints), Budget(**{kind: limit}))
    check_reachable(Space(network, constraints), Budget(**{kind: least}))


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=st.integers(0, 999), kind=st.sampled_from(COSTS), share=st.floats(0, 1))
def test_plans_keep_to_the_constraints_and_meet_budgets_that_can_be_met(name, allocation, data, seed, kind, share):
    network = NETWORKS[name]()
    constraints = data.draw(constraints_for(network))
    effects = some_effects(network, seed)
    most = {g.name: len(g.units) - (allocation == "curves") for g in network.groups}  # curves keep a unit
    costs = [
        getattr(cost, kind)
        for counts, cost in every_width(name)
        if allowed(network, counts, constraints) and all(counts[g] <= most[g] for g in most)
    ]
    limit = min(costs) + share * (max(costs) - min(costs))
    plan = allocate(network, effects, Budget(**{kind: limit}), allocation=allocation, constraints=constraints)
    assert getattr(plan, kind) <= limit
    gone = plan.removed_per_group()
    assert allowed(network, {g.name: gone.get(g.name, 0) for g in network.groups}, constraints)


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@settings(max_examples=30, deadline=None)
@given(
    data=st.data(), seed=st.integers(0, 999), budget=st.builds(Budget, macs=st.floats(0.1, 1), params=st.floats(0.1, 1))
)
def test_with_several_bounds_plans_meet_all_or_none_is_made(allocation, data, seed, budget):
    network = NETWORKS["concat"]()
    constraints = data.draw(constraints_for(network))
    dense = network.cost()
    possible = any(
        budget.met_by(c, dense) for counts, c in every_width("concat") if allowed(network, counts, constraints)
    )
    try:
        plan = allocate(network, some_effects(network, seed), budget, allocation=allocation, constraints=constraints)
    except BudgetError:
        assert not possible or allocation == "curves"  # curves end with a unit of each group
        return
    assert budget.met_by(network.cost(network.select(plan.units)), dense)
    gone = plan.removed_per_group()
    assert allowed(network, {g.name: gone.get(g.name, 0) for g in network.groups}, constraints)


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), ratio=st.floats(0.3, 1), estimand=st.sampled_from(["single", "score"]))
def test_bounds_that_bind_nowhere_change_nothing(allocation, seed, ratio, estimand):
    network = NETWORKS["concat"]()
    effects = some_effects(network, seed, estimand=estimand)
    free = allocate(network, effects, Budget(macs=ratio), allocation=allocation)
    for loose in (
        Constraints(),
        Constraints(round_to=1, min_width=1, max_share=1.0),
        Constraints(round_to={"conv1": 1}),
    ):
        assert allocate(network, effects, Budget(macs=ratio), allocation=allocation, constraints=loose) == free


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 999), steps=st.lists(st.floats(0.2, 0.9), min_size=2, max_size=3))
def test_constraints_hold_for_the_dense_network_however_many_steps_are_taken(data, seed, steps):
    network = NETWORKS["pad shortcut"]()
    constraints = data.draw(constraints_for(network))
    removed = ()
    for ratio in sorted(steps, reverse=True):
        curves = {name: without(curve, removed) for name, curve in some_effects(network, seed).curves.items()}
        try:
            plan = plan_along(network, curves, Budget(macs=ratio), removed=removed, constraints=constraints)
        except BudgetError:
            return
        assert {u.name for u in removed} <= set(plan.units)
        removed = network.select(plan.units)
        gone = plan.removed_per_group()
        assert allowed(network, {g.name: gone.get(g.name, 0) for g in network.groups}, constraints)


def without(curve: ResponseCurve, removed) -> ResponseCurve:
    """The curve from where these units are gone."""
    gone = {unit.name for unit in removed}
    order = tuple(name for name in curve.order if name not in gone)
    effect = curve.effect[len(curve.order) - len(order) :]
    return ResponseCurve(curve.group, order, np.arange(len(order) + 1), effect - effect[0], 0 * effect)


def test_units_that_break_a_multiple_already_are_named():
    network = NETWORKS["residual"]()
    curves = {name: without(curve, ()) for name, curve in some_effects(network).curves.items()}
    with pytest.raises(InputError, match=r"stem\.0\.weight.* 5 channels left.* multiple of 3"):
        plan_along(
            network,
            {"stem.0": without(curves["stem.0"], network.group("stem.0").units[:1])},
            Budget(macs=0.999),
            removed=network.group("stem.0").units[:1],
            constraints=Constraints(round_to=3),
        )


def test_multiples_take_the_least_harmful_units_as_a_block():
    """Six units in blocks of three, for a budget that one unit would meet: the three least harmful go."""
    network = NETWORKS["flatten"]()
    group = network.groups[0]
    effects = replace(some_effects(network, curves=False), mean=np.arange(6.0)[::-1])
    limit = network.cost(group.units[:1]).macs
    plan = allocate(
        network, effects, Budget(macs=float(limit)), allocation="global", constraints=Constraints(round_to=3)
    )
    assert set(plan.units) == {u.name for u in group.units[3:]}
