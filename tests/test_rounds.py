"""Rounds end at the budget, and plan again, once, where what is measured disagrees with what was predicted."""

from itertools import pairwise

import pytest
import torch

import tiny
from structure.networks import traced
from structure.removal_property import fresh_batch, removals
from whyprune.allocation import Budget
from whyprune.data.calibration import calibrate
from whyprune.effects.joint import Joint
from whyprune.pipeline import rounds
from whyprune.pipeline.planners import ByCurves
from whyprune.pipeline.rounds import prune_in_rounds, remove_further
from whyprune.structure.remove import remove
from whyprune.structure.trace import trace

NAMES = ["residual", "projection", "pad shortcut", "separable", "grouped", "concat", "vgg"]


@pytest.fixture(scope="module")
def network():
    return trace(tiny.trained(), tiny.digits()[0][:2])


@pytest.fixture(scope="module")
def calibration(network):
    return calibrate(tiny.batches(0, 240), network.positional, None, 0)


@pytest.mark.parametrize("name", NAMES)
def test_removing_in_two_steps_is_removing_at_once(name):
    network = traced(name)
    batch = fresh_batch(network)
    for units in removals(network, singles=2):
        for half in (units[::2], units[:1], [], units):
            stepwise = remove_further(network, remove(network, half), half, units)
            at_once = remove(network, units)
            for (key, one), two in zip(stepwise.state_dict().items(), at_once.state_dict().values(), strict=True):
                assert torch.equal(one, two), key
            with torch.no_grad():
                assert torch.equal(batch.call(stepwise), batch.call(at_once))


def test_rounds_end_within_the_budget_with_a_network_that_fits_the_plan(network, calibration):
    budget = Budget(macs=0.4, params=0.6)
    found = prune_in_rounds(network, calibration, budget)
    dense = network.cost()
    assert found.plan.macs <= 0.4 * dense.macs
    assert found.plan.params <= 0.6 * dense.params
    assert found.plan.params == sum(p.numel() for p in found.model.parameters())
    assert found.plan.budget == {"macs": 0.4, "params": 0.6}
    assert set(found.curves) == {g.name for g in network.groups}


def test_more_is_removed_round_by_round_and_nothing_comes_back(network, calibration, monkeypatch):
    seen = []

    def spy(network, model, gone, units):
        seen.append(({u.name for u in gone}, {u.name for u in units}))
        return remove_further(network, model, gone, units)

    monkeypatch.setattr(rounds, "remove_further", spy)
    measured_as(monkeypatch, lambda _: 0.0)
    found = prune_in_rounds(network, calibration, Budget(macs=0.3), planner=ByCurves(step=1.5), repairing=False)
    assert len(seen) == 3  # ln(1 / 0.3) / ln(1.5) = 2.97
    for (_, before), (gone, units) in pairwise(seen):
        assert gone == before < units
    assert set(found.plan.units) == seen[-1][1]


def measured_as(monkeypatch, effect):
    """From now on `effect(number of the measurement)` is what joint measurements give."""
    calls = []

    def fake(*args, **kwargs):
        calls.append(args[0].removed)
        return Joint("logit-shift", effect(len(calls)), 1e-9, 100)

    monkeypatch.setattr(rounds, "joint_effect", fake)
    return calls


def test_where_the_prediction_holds_nothing_is_planned_again(network, calibration, monkeypatch):
    measured_as(monkeypatch, lambda _: 0.0)
    found = prune_in_rounds(network, calibration, Budget(macs=0.7), repairing=False)
    assert found.notes == []


def test_a_round_that_disagrees_is_planned_again_in_two_smaller_steps(network, calibration, monkeypatch):
    calls = measured_as(monkeypatch, lambda n: 1e3 if n == 1 else 0.0)
    found = prune_in_rounds(network, calibration, Budget(macs=0.7), repairing=False)
    assert len(found.notes) == 1
    assert "two smaller steps" in found.notes[0]
    assert 0 < len(calls[1]) < len(calls[-1])
    assert found.plan.macs <= 0.7 * network.cost().macs


def test_rounds_end_even_if_every_measurement_disagrees(network, calibration, monkeypatch):
    measured_as(monkeypatch, lambda n: 1e3 ** min(n, 50))
    found = prune_in_rounds(network, calibration, Budget(macs=0.7), repairing=False)
    assert len(found.notes) == 1
    assert found.plan.macs <= 0.7 * network.cost().macs


def test_the_same_seed_gives_the_same_plan_and_network(network, calibration):
    one, two = (prune_in_rounds(network, calibration, Budget(macs=0.5), seed=2) for _ in range(2))
    assert one.plan == two.plan
    for a, b in zip(one.model.state_dict().values(), two.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
