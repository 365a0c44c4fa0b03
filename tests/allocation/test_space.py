"""Points of a space: what they cost, whether they are feasible, and the plans they stand for."""

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocation.test_constrained import NETWORKS, allowed, constraints_for
from allocation.test_increments import blocks
from whyprune.allocation import Space
from whyprune.allocation.constraints import Constraints
from whyprune.errors import InputError
from whyprune.structure.remove import remove
from whyprune.structure.state import State


def orders(space):
    gone = {u.name for u in space.state.removed}
    return {name: [u.name for u in g.units if u.name not in gone] for name, g in space.bounds.groups.items()}


@st.composite
def points(draw, space):
    stops = {v.name: draw(st.sampled_from(v.stops)) for v in space}
    point = space.bounds.rounded(
        space.bounds.filled({n: c - space.start[n] for n, c in stops.items() if n in space.bounds.groups})
    )
    return {**point, **{name: stops[name] for name in space.inside}}


@settings(max_examples=80, deadline=None)
@given(data=st.data(), halved=st.booleans())
def test_a_point_costs_what_the_network_without_its_units_costs(data, halved):
    state = State.of(blocks())
    if halved:
        state = remove(state, [u for g in state.network.groups for u in g.units[:1]])
    space = Space(state, kinds=("width", "block"))
    point = data.draw(points(space))
    names = space.units(point, orders(space))
    cost = state.network.cost(state.network.select(names))
    assert space.cost(point) == cost
    assert space.amount("params", point) == cost.params
    assert {u.name for u in state.removed} <= set(names)
    plan = space.plan(point, orders(space), method="drawn")
    assert plan.macs == cost.macs
    assert set(plan.blocks) == set(space.gone_blocks(point))
    assert space.is_feasible(point)


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_what_is_feasible_is_what_the_constraints_allow(name, data):
    network = NETWORKS[name]()
    constraints = data.draw(constraints_for(network))
    space = Space(network, constraints)
    point = {g.name: data.draw(st.integers(0, len(g.units))) for g in network.groups}
    first_axes = {g.home for g in network.groups}
    if len(first_axes) == len(network.groups):  # groups that share their first axis may give units back to each other
        assert space.is_feasible(point) == allowed(network, point, constraints)


def test_groups_on_one_axis_keep_its_least_width_together():
    """Eight channels, three of one group and four of another may go: each alone leaves five, both leave one."""
    space = Space(NETWORKS["shared axis"](), Constraints(min_width={"0/1": 4, "0/2": 4}))
    assert space.is_feasible({"0/1": 3})
    assert space.is_feasible({"0/2": 2})
    assert space.is_feasible({"0/1": 2, "0/2": 1})
    assert not space.is_feasible({"0/1": 3, "0/2": 2})


@cache
def small():
    return NETWORKS["residual"]()


def test_a_block_has_two_stops_and_a_width_all_that_constraints_leave():
    space = Space(blocks(), Constraints(round_to={"0": 2}), kinds=("width", "block"))
    kinds = {v.name: v.kind for v in space}
    assert [name for name, kind in kinds.items() if kind == "block"] == [b.name for b in blocks().blocks]
    assert all(space.variables[b.name].stops == (0, 1) for b in blocks().blocks)
    assert space.variables["0"].stops == (0, 2, 4)
    assert "block" not in {v.kind for v in Space(blocks())}


def test_groups_inside_a_block_that_is_gone_decide_nothing():
    space = Space(blocks(), kinds=("width", "block"))
    block = blocks().blocks[0]
    for counts in itertools.product(range(2), repeat=len(block.groups)):
        point = {block.name: 1, **dict(zip(block.groups, counts, strict=True))}
        assert space.cost(point) == space.cost({block.name: 1})
        assert space.units(space.rounded(point), orders(space)) == space.units({block.name: 1}, orders(space))


def test_bounds_of_a_space_only_tighten():
    space = Space(small())
    name = small().groups[0].name
    assert space.bounded({name: 2}).bounded({name: 4}).variables[name].stops[-1] == 2


def test_kinds_that_nobody_knows_are_refused():
    with pytest.raises(InputError, match="no decision variables of kind 'depth'"):
        Space(small(), kinds=("width", "depth"))


def test_a_state_is_where_a_space_starts():
    state = remove(State.of(small()), [small().groups[0].units[0]])
    space = Space(state)
    assert space.start[small().groups[0].name] == 1
    assert np.min(space.variables[small().groups[0].name].stops) == 1
