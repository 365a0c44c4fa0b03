"""Groups that go together lose the same channels, and the pruned network is still right."""

import pytest
import torch
from networks import randomised
from removal_property import assert_removal_is_right, removals
from torch import nn

from whyprune.errors import InputError
from whyprune.structure.trace import trace


def twins():
    """Three hidden layers, two of them of one width."""
    return randomised(
        nn.Sequential(
            nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)
        )
    )


@pytest.fixture(scope="module")
def network():
    return trace(twins(), torch.randn(2, 5))


def test_unit_i_of_every_group_is_one_unit(network):
    tied = network.together([["0", "4"]])
    assert {g.name: len(g.units) for g in tied.groups} == {"0": 6, "2": 4}
    for unit, *parts in zip(tied.group("0").units, network.group("0").units, network.group("4").units, strict=True):
        expected = {(s.parameter, s.axis, s.indices) for part in parts for s in part.slices}
        assert {(s.parameter, s.axis, s.indices) for s in unit.slices} == expected


def test_removing_tied_units_is_right(network):
    tied = network.together([["0", "4"]])
    for units in removals(tied, singles=6):
        assert_removal_is_right(tied, units)
        by_hand = [f"{name}:{u.index}" for u in units for name in (["0", "4"] if u.group == "0" else [u.group])]
        assert tied.cost(units) == network.cost(network.select(by_hand))


def test_groups_that_cannot_go_together(network):
    with pytest.raises(InputError, match=r"equally many units, these have \{'0': 6, '2': 4\}"):
        network.together([["0", "2"]])
    with pytest.raises(InputError, match="nothing to tie is named 'x'"):
        network.together([["0", "x"]])
