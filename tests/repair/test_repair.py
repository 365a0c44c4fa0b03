"""Repair on networks whose truth is known, and its promises on any network."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from repair.repaired_networks import NAMES, harm
from structure.networks import randomised, traced
from structure.removal_property import assert_same_snapshot, fresh_batch, removals, snapshot
from whyprune.effects.joint import joint_effect
from whyprune.errors import InputError
from whyprune.repair import reestimate_batch_norm, repair
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace
from whyprune.testing import planted


@pytest.mark.parametrize("name", NAMES)
def test_a_network_that_lacks_nothing_stays_what_it_is(name):
    network = traced(name)
    batch = fresh_batch(network, count=64)
    repaired = repair(State(network, copy.deepcopy(network.model), ()), [batch]).model
    assert harm(network, repaired, batch) < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_repair_never_makes_the_calibration_outcome_worse_and_changes_no_one_elses_module(name):
    network = traced(name)
    batch = fresh_batch(network, count=24)
    original = snapshot(network.model)
    better = 0
    for units in removals(network, singles=2):
        pruned = remove(network, units)
        before = snapshot(pruned)
        repaired = repair(State(network, pruned, units), [batch]).model
        first, second = harm(network, pruned, batch), harm(network, repaired, batch)
        assert second <= first + 1e-6
        better += second < 0.9 * first
        assert_same_snapshot(before, snapshot(pruned))
        assert [p.shape for p in repaired.parameters()] == [p.shape for p in pruned.parameters()]
    assert_same_snapshot(original, snapshot(network.model))
    assert better >= 3


def test_weights_stay_where_the_outcome_would_become_worse():
    """The outcome rewards damage: repair has nothing to offer."""
    network = traced("residual")
    batch = fresh_batch(network, count=24)
    units = network.units[:3]
    pruned = remove(network, units)

    def closeness(logits, dense, labels):
        return -(logits - dense).square().sum(dim=1)

    repaired = repair(State(network, pruned, units), [batch], outcome=closeness).model
    assert_same_snapshot(snapshot(pruned), snapshot(repaired))


@pytest.mark.parametrize("readers", [1, 2])
def test_what_a_copy_can_carry_is_repaired_and_what_nobody_can_carry_is_not(readers):
    case = planted.case(readers)
    network = case.network

    def joint(indices, repairing):
        units = network.select([case.unit(k) for k in indices])
        model = remove(network, units)
        if repairing:
            model = repair(State(network, model, units), [case.images[:64]]).model
        return joint_effect(State(network, model, units), [case.images[64:]]).mean

    one, both = [planted.COPY], [planted.COPY, planted.OTHER_COPY]
    assert joint(one, repairing=False) > 0.02
    assert joint(one, repairing=True) < 1e-3
    assert joint(both, repairing=True) > 10 * joint(one, repairing=True)


def test_a_linear_combination_of_others_is_repaired_exactly():
    """Without activations: filter 3 is twice filter 0 less filter 1."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)
    ).eval()
    with torch.no_grad():
        model[0].weight[3] = 2 * model[0].weight[0] - model[0].weight[1]
        model[0].bias[3] = 0.7  # a constant goes into the next bias
    images = torch.randn(80, 3, 8, 8)
    network = trace(model, images[:2])
    units = network.select(["0:3"])
    pruned = remove(network, units)
    repaired = repair(State(network, pruned, units), [images[:64]]).model
    assert joint_effect(State(network, pruned, units), [images[64:]]).mean > 0.1
    assert joint_effect(State(network, repaired, units), [images[64:]]).mean < 1e-4


def test_the_same_seed_repairs_the_same():
    network = traced("residual")
    batch = fresh_batch(network, count=200)
    units = network.units[::3]
    one, two = (repair(State(network, remove(network, units), units), [batch], seed=4).model for _ in range(2))
    assert_same_snapshot(snapshot(one), snapshot(two))


def test_repair_needs_images():
    network = traced("residual")
    with pytest.raises(InputError, match="no data"):
        repair(State(network, network.model, ()), [])


def normalised():
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.Dropout(0.9), nn.Flatten(), nn.Linear(144, 2)]
    return randomised(nn.Sequential(*layers))


@settings(max_examples=15, deadline=None)
@given(batches=st.integers(1, 3), seed=st.integers(0, 99))
def test_batch_norm_holds_the_statistics_of_the_data_averaged_over_batches(batches, seed):
    model = normalised()
    generator = torch.Generator().manual_seed(seed)
    data = [torch.randn(6, 3, 8, 8, generator=generator) * 2 + 1 for _ in range(batches)]
    tuned = reestimate_batch_norm(model, data)
    with torch.no_grad():
        outputs = [model[0](x).transpose(0, 1).flatten(1) for x in data]
    torch.testing.assert_close(tuned[1].running_mean, torch.stack([o.mean(dim=1) for o in outputs]).mean(dim=0))
    torch.testing.assert_close(tuned[1].running_var, torch.stack([o.var(dim=1) for o in outputs]).mean(dim=0))


def test_re_estimation_changes_nothing_but_statistics():
    model = normalised()
    before = snapshot(model)
    tuned = reestimate_batch_norm(model, [torch.randn(8, 3, 8, 8)])
    assert_same_snapshot(before, snapshot(model))
    for (name, old), new in zip(model.named_parameters(), tuned.parameters(), strict=True):
        assert torch.equal(old, new), name
    assert tuned[1].momentum == 0.3
    assert not any(m.training for m in tuned.modules())
    with pytest.raises(InputError, match="no data"):
        reestimate_batch_norm(model, [])
