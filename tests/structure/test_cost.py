"""The cost model agrees with counts by hand, by torch and with itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import CASES, traced
from removal_property import counted_macs, fresh_batch

from whyprune.models import BUILT_INS
from whyprune.structure.cost import Cost, marginal

BATCH_NORM = 4 * 6 * 4 + 8  # four float vectors of 6 and an int64 counter


def test_costs_by_hand():
    """conv 3 -> 6 (3x3, 8x8 places), pooling to 4x4, linear 96 -> 4."""
    network = traced("flatten")
    dense = Cost(macs=3 * 6 * 9 * 64 + 96 * 4, params=162 + 12 + 388, bytes=4 * (162 + 388) + BATCH_NORM)
    assert network.cost() == dense
    two_gone = network.cost(network.units[:2])
    assert two_gone.macs == 3 * 4 * 9 * 64 + 64 * 4
    assert two_gone.params == 108 + 8 + 260
    assert two_gone.bytes == 4 * (108 + 260) + 4 * 4 * 4 + 8
    assert marginal(network.cost, network.groups[0]).tolist() == [27 * 64 + 16 * 4, 27 + 2 + 64]


@pytest.mark.parametrize("name", [*CASES, *BUILT_INS])
def test_the_dense_cost_is_what_torch_counts(name):
    network = traced(name)
    state = [*network.model.parameters(), *network.model.buffers()]
    assert network.cost().macs == counted_macs(network.model, fresh_batch(network, count=2))
    assert network.cost().params == sum(p.numel() for p in network.model.parameters())
    assert network.cost().bytes == sum(t.numel() * t.element_size() for t in state)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_counts_per_group_cost_the_same_as_any_units_of_those_counts(data):
    network = traced(data.draw(st.sampled_from(["concat", "pad shortcut", "grouped", "vgg", "mobilenet_v2"])))
    counts = {g: data.draw(st.integers(0, len(g.units) - 1)) for g in network.groups}
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    units = [u for g, n in counts.items() for u in rng.choice(np.array(g.units, dtype=object), n, replace=False)]
    assert network.cost.of_groups(counts) == network.cost(units)


@pytest.mark.parametrize("name", ["concat", "grouped", "resnet20"])
def test_marginal_costs_are_those_of_one_unit(name):
    network = traced(name)
    dense = network.cost()
    for group in network.groups:
        without = network.cost(group.units[:1])
        assert marginal(network.cost, group).tolist() == [dense.macs - without.macs, dense.params - without.params]
