"""Constraints check their values, and hold for the groups that their names mean."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from allocation.made_up import some_effects
from structure.networks import traced
from whyprune.allocation import Budget, allocate
from whyprune.allocation.constraints import Constraints, Limits
from whyprune.errors import InputError
from whyprune.structure.trace import trace


@pytest.mark.parametrize(
    ("given_values", "message"),
    [
        ({"ignore": "stem"}, "ignore='stem'"),
        ({"ignore": (1,)}, "ignore="),
        ({"round_to": 0}, "round_to=0"),
        ({"round_to": 2.0}, "round_to=2.0"),
        ({"round_to": True}, "round_to=True"),
        ({"round_to": {"stem.0": 0}}, "round_to['stem.0']=0"),
        ({"round_to": {"stem.0": None}}, "round_to['stem.0']=None"),
        ({"min_width": -1}, "min_width=-1"),
        ({"min_width": {3: 3}}, "min_width[3]"),
        ({"max_share": 1.5}, "max_share=1.5"),
        ({"max_share": float("nan")}, "max_share=nan"),
        ({"max_share": {"stem.0": "half"}}, "max_share['stem.0']='half'"),
        ({"together": "a,b"}, "together='a,b'"),
        ({"together": ("a", "b")}, "together='a'"),
        ({"together": (("a",),)}, "at least two"),
        ({"together": (("a", "a"),)}, "at least two"),
    ],
)
def test_values_that_cannot_be_are_refused(given_values, message):
    with pytest.raises(InputError) as caught:
        Constraints(**given_values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_record_does_not_change_with_what_it_was_made_from():
    widths = {"stem.0": 4}
    constraints = Constraints(ignore=["first.0"], min_width=widths, together=[["a", "b"]])
    widths["stem.0"] = 9
    assert constraints.min_width == {"stem.0": 4}
    assert constraints == Constraints(ignore=("first.0",), min_width={"stem.0": 4}, together=(("a", "b"),))
    with pytest.raises(AttributeError):
        constraints.round_to = 8


NAMES = st.sampled_from(["stem.0", "first.0", "stem", "second"])


def scalar_or_mapping(values):
    return st.one_of(st.none(), values, st.dictionaries(NAMES, values))


EVERY = st.builds(
    Constraints,
    ignore=st.lists(NAMES, max_size=2).map(tuple),
    round_to=scalar_or_mapping(st.integers(1, 9) | st.integers(1, 9).map(np.int64)),
    min_width=scalar_or_mapping(st.integers(1, 9)),
    max_share=scalar_or_mapping(st.floats(0, 1) | st.floats(0, 1).map(np.float64)),
    together=st.lists(st.lists(NAMES, min_size=2, max_size=3, unique=True).map(tuple), max_size=2).map(tuple),
)


@given(constraints=EVERY)
def test_what_is_recorded_makes_the_same_constraints(constraints):
    assert Constraints(**json.loads(json.dumps(constraints.as_dict()))) == constraints


@pytest.mark.parametrize("field", ["round_to", "min_width", "max_share"])
def test_an_unknown_name_lists_the_groups(field):
    with pytest.raises(InputError, match=r"'nowhere'.*stem\.0, first\.0"):
        Constraints(**{field: {"nowhere": 1}}).limits(traced("residual"))


def test_a_groups_name_means_that_group_and_a_modules_name_all_that_it_writes():
    network = traced("pad shortcut")  # the layer second.0 writes the stem's channels and four more of its own
    free = Limits()
    limits = Constraints(round_to={"second.0": 4}, min_width={"second": 3}, max_share={"first": 0.5}).limits(network)
    assert limits == {
        "stem.0": Limits(width=3),
        "first.0": Limits(share=0.5),
        "second.0": Limits(multiple=4, width=3),
    }
    assert set(Constraints().limits(network).values()) == {free}


@settings(max_examples=30)
@given(values=st.permutations([("stem.0", 4), ("stem", 6), ("second", 5)]))
def test_where_several_names_mean_one_group_all_hold(values):
    network = traced("residual")
    limits = Constraints(
        round_to=dict(values), min_width=dict(values), max_share={name: 1 / n for name, n in values}
    ).limits(network)
    assert limits["stem.0"] == Limits(multiple=60, width=6, share=1 / 6)


@given(hundredths=st.integers(0, 100), units=st.integers(1, 3000))
def test_a_share_in_hundredths_counts_units_exactly(hundredths, units):
    assert Limits(share=hundredths / 100).most(units) == hundredths * units // 100


def test_prepared_networks_lack_what_is_ignored():
    network = Constraints(ignore=("first",)).prepared(traced("residual"))
    assert [g.name for g in network.groups] == ["stem.0"]
    assert Constraints().prepared(traced("residual")).groups == traced("residual").groups


def two_of_six() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4)).eval()


@pytest.mark.parametrize("allocation", ["uniform", "global", "curves"])
def test_groups_that_go_together_lose_the_same_units(allocation):
    constraints = Constraints(together=(("0", "2"),), round_to=2)
    network = constraints.prepared(trace(two_of_six(), torch.randn(2, 5)))
    plan = allocate(network, some_effects(network), Budget(params=0.6), allocation=allocation, constraints=constraints)
    gone = {(entry.parameter, entry.axis): entry.indices for entry in plan.removed}
    assert gone["0.weight", 0] == gone["2.weight", 0] == gone["2.weight", 1] == gone["4.weight", 1]
    assert len(gone["0.weight", 0]) in (2, 4)


def test_groups_that_are_still_apart_are_refused():
    network = trace(two_of_six(), torch.randn(2, 5))
    with pytest.raises(InputError, match=r"0, 2 are still apart.*network\.together"):
        allocate(network, some_effects(network), Budget(params=0.6), constraints=Constraints(together=(("0", "2"),)))
    with pytest.raises(InputError, match="together names 'nowhere'"):
        allocate(
            network, some_effects(network), Budget(params=0.6), constraints=Constraints(together=(("0", "nowhere"),))
        )


def test_allocating_keeps_what_is_ignored():
    network = traced("residual")
    plan = allocate(network, some_effects(network), Budget(macs=0.7), constraints=Constraints(ignore=("first",)))
    assert set(plan.removed_per_group()) == {"stem.0"}
    with pytest.raises(InputError, match="'nowhere'"):
        allocate(network, some_effects(network), Budget(macs=0.7), constraints=Constraints(ignore=("nowhere",)))


def test_a_prepared_network_is_allocated_with_the_same_constraints():
    constraints = Constraints(ignore=("first",), min_width=2)
    network = constraints.prepared(traced("residual"))
    effects, budget = some_effects(traced("residual")), Budget(macs=0.7)
    plan = allocate(network, effects, budget, constraints=constraints)
    assert plan.units
    assert plan == allocate(traced("residual"), effects, budget, constraints=constraints)
