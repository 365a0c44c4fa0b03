"""Reconstruction: its promises on any network, and a truth that only inner layers of a branch can reach."""

import copy

import pytest
import torch
from torch import nn

from repair.repaired_networks import NAMES, harm
from structure.networks import traced
from structure.removal_property import assert_same_snapshot, fresh_batch, output, removals, snapshot
from whyprune.data.batches import Batch
from whyprune.errors import InputError
from whyprune.repair import reconstruct, repair
from whyprune.repair.lockstep import schedule
from whyprune.repair.segments import MOST_LAYERS, segments
from whyprune.repair.targets import targets
from whyprune.structure.remove import remove
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.trace import trace


@pytest.mark.parametrize("name", NAMES)
def test_a_network_that_lacks_nothing_stays_what_it_is(name):
    network = traced(name)
    batch = fresh_batch(network, count=32)
    assert harm(network, reconstruct(State(network, copy.deepcopy(network.model), ()), [batch]).model, batch) < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_it_never_makes_the_outcome_worse_helps_and_changes_no_one_elses_module(name):
    network = traced(name)
    batch = fresh_batch(network, count=48)
    original, better = snapshot(network.model), 0
    for units in removals(network, singles=2):
        repaired = repair(State(network, remove(network, units), units), [batch]).model
        before = snapshot(repaired)
        found = reconstruct(State(network, repaired, units), [batch], rounds=2).model
        first, second = harm(network, repaired, batch), harm(network, found, batch)
        assert second <= first + 1e-6
        better += second < 0.95 * first
        assert_same_snapshot(before, snapshot(repaired))
        assert [p.shape for p in found.parameters()] == [p.shape for p in repaired.parameters()]
    assert_same_snapshot(original, snapshot(network.model))
    assert better >= 1


@pytest.mark.parametrize("name", NAMES)
def test_segments_hold_every_layer_once_and_read_only_what_came_before(name):
    network = traced(name)
    replay = Replay(network)
    order = schedule(replay)
    jobs = targets(replay, order)
    found = segments(jobs, order)
    assert [layer for part in found for layer in part.layers] == jobs
    steps = [step for part in found for step in part.steps]
    assert steps == order[: len(steps)]
    for part in found:
        assert 1 <= len(part.layers) <= MOST_LAYERS
        assert part.steps[-1] is part.aim
        assert all(layer.node in part.steps for layer in part.layers)
        assert all(layer.other is None for layer in part.layers[:-1])


class Branch(nn.Module):
    """x + a branch of inner units, of which unit 1 works and unit 2 idles."""

    def __init__(self, width=6, inner=4):
        super().__init__()
        self.wide, self.narrow = nn.Linear(width, inner), nn.Linear(inner, width)
        self.head = nn.Linear(width, 5)
        with torch.no_grad():
            self.narrow.weight[:, 2] = 0
            self.narrow.weight[:, 1] *= 3

    def forward(self, x):
        return self.head(x + self.narrow(torch.relu(self.wide(x))))


def test_an_idle_unit_takes_over_the_work_of_a_removed_one():
    """Layer by layer it cannot: the idle unit's own target is what it was."""
    left = []
    for seed in range(6):
        torch.manual_seed(seed)
        batch = Batch((torch.randn(512, 6),), {})
        network = trace(Branch().eval(), batch.args[0][:4])
        unit = network.by_name["wide:1"]
        repaired = repair(State(network, remove(network, [unit]), [unit]), [batch]).model
        found = reconstruct(State(network, repaired, [unit]), [batch], rounds=10, iterations=20).model
        left.append(harm(network, found, batch) / harm(network, repaired, batch))
    assert max(left) < 0.7  # where a ReLU is silent there is nothing to follow: not every start leads all the way
    assert min(left) < 0.05


def test_the_same_seed_gives_the_same_weights():
    network = traced("projection")
    batch = fresh_batch(network, count=32)
    units = network.units[:3]
    pruned = remove(network, units)
    one, two = (reconstruct(State(network, pruned, units), [batch], seed=3).model for _ in range(2))
    assert_same_snapshot(snapshot(one), snapshot(two))


def test_training_mode_computes_what_evaluation_does():
    """Batch normalisation holds the statistics of what it now gets."""
    network = traced("residual")
    batch = fresh_batch(network, count=256)
    units = network.units[:3]
    found = reconstruct(State(network, remove(network, units), units), [batch], rounds=2).model
    evaluated = output(found.eval(), batch)
    trained = output(copy.deepcopy(found).train(), batch)
    torch.testing.assert_close(trained, evaluated, atol=0.05, rtol=0.05)


class Written(nn.Module):
    """A branch that writes over its first channels, which `torch.export` captures as a copy without a derivative."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3), nn.Linear(5, 4)

    def forward(self, x):
        x = torch.relu(self.one(x))
        x[:, :2] = x[:, :2].abs() + 1
        return self.head(torch.relu(self.two(x)).mean(dim=(2, 3)))


def test_branches_that_cannot_be_differentiated_stay_as_they_are():
    torch.manual_seed(0)
    batch = Batch((torch.randn(64, 3, 8, 8),), {})
    network = trace(Written().eval(), batch.args[0][:4])
    units = network.units[-2:]
    repaired = repair(State(network, remove(network, units), units), [batch]).model
    found = reconstruct(State(network, repaired, units), [batch]).model
    assert torch.equal(found.one.weight, repaired.one.weight)
    assert torch.equal(found.two.weight, repaired.two.weight)
    assert harm(network, found, batch) <= harm(network, repaired, batch) + 1e-6


@pytest.mark.parametrize("bad", [{"rounds": 0}, {"iterations": 0}, {"damping": 0.0}, {"damping": float("nan")}])
def test_numbers_that_make_no_sense_are_refused(bad):
    network = traced("mlp")
    with pytest.raises(InputError, match="above 0"):
        reconstruct(State(network, network.model, ()), [fresh_batch(network, count=8)], **bad)


def test_without_data_it_says_what_to_give():
    network = traced("mlp")
    with pytest.raises(InputError, match="unlabelled images"):
        reconstruct(State(network, network.model, ()), [])
