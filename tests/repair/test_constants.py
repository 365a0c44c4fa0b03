"""Constants in biases give the network under do(removed := constants), away from padded borders."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from structure.networks import conv_bn, randomised, traced
from structure.removal_property import assert_close, assert_same_snapshot, fresh_batch, output, removals, snapshot
from tiny import batches, digits, trained
from whyprune.effects.joint import joint_effect
from whyprune.errors import InputError
from whyprune.interventions.worlds import Worlds
from whyprune.repair.constants import fitted_constants, fold_constants, repair_constants, unfolded
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace


class Bare(nn.Module):
    """No padding anywhere: with and without batch norm, a residual stream, groups, a flatten in front of the head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, 6, 1), nn.ReLU())
        self.first = nn.Sequential(nn.Conv2d(6, 5, 1), nn.ReLU())
        self.second = nn.Sequential(*conv_bn(5, 6, 1))
        self.wide = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2), nn.ReLU())
        self.grouped = nn.Sequential(nn.Conv2d(8, 6, 1, groups=2), nn.Tanh())
        self.head = nn.Linear(54, 4)

    def forward(self, x):
        x = self.stem(x)
        x = F.relu(x + self.second(self.first(x)))
        return self.head(self.grouped(self.wide(x)).flatten(1))


@pytest.fixture(scope="module")
def bare():
    return trace(randomised(Bare()), torch.randn(2, 3, 7, 7))


@pytest.mark.parametrize("intervention", ["mean", "optimal", "closed-form"])
def test_without_padding_it_is_the_network_under_the_intervention(bare, intervention):
    batch = fresh_batch(bare, count=30)
    original = snapshot(bare.model)
    worlds = Worlds(bare, [batch], intervention=intervention)
    constants = fitted_constants(bare, [batch], intervention=intervention)
    for units in removals(bare, singles=5):
        mask = np.isin([u.name for u in worlds.units], [u.name for u in units])
        expected = worlds.logits(np.tile(mask, (30, 1)), np.arange(30))
        pruned = remove(bare, units)
        before = snapshot(pruned)
        assert_close(output(fold_constants(State(bare, pruned, units), constants).model, batch), expected)
        assert_same_snapshot(before, snapshot(pruned))
        assert unfolded(bare, units) == ()
    assert_same_snapshot(original, snapshot(bare.model))


def test_constants_by_name_are_the_same_for_all_readers(bare):
    batch = fresh_batch(bare)
    units = list(bare.units[::3])
    named = {u.name: 0.1 * k for k, u in enumerate(units)}
    zero = fold_constants(State(bare, remove(bare, units), units), {}).model
    assert_close(output(zero, batch), output(remove(bare, units), batch), 0)
    constants = fitted_constants(bare, [batch])
    by_label = {u.label: named[u.name] for u in units}
    for reader in bare.readers:
        constants.at[reader.data] = torch.tensor([by_label.get(label, 9.0) for label in reader.labels.tolist()])
    expected = fold_constants(State(bare, remove(bare, units), units), constants).model
    assert_close(
        output(fold_constants(State(bare, remove(bare, units), units), named).model, batch), output(expected, batch)
    )
    with pytest.raises(InputError, match="no unit named 'nobody'"):
        fold_constants(State(bare, remove(bare, units), units), {"nobody": 1.0})


class Padded(nn.Module):
    """The second convolution pads; `crop` cuts away what its kernel computes from outside the image."""

    def __init__(self, crop):
        super().__init__()
        self.units = nn.Conv2d(3, 6, 3)
        self.reader = nn.Conv2d(6, 5, 3, padding=1)
        self.head = nn.Linear(5, 4)
        self.crop = crop

    def forward(self, x):
        x = self.reader(torch.relu(self.units(x)))
        return self.head(
            torch.relu(x[:, :, self.crop : x.shape[2] - self.crop, self.crop : x.shape[3] - self.crop]).mean((2, 3))
        )


def test_with_padding_only_the_border_is_off():
    away = {}
    for crop in (0, 1):
        network = trace(randomised(Padded(crop)), torch.randn(2, 3, 8, 8))
        batch = fresh_batch(network, count=20)
        units = network.select([u.name for u in network.units if u.group == "units"][:3])
        worlds = Worlds(network, [batch], intervention="mean")
        mask = np.isin([u.name for u in worlds.units], [u.name for u in units])
        folded = fold_constants(State(network, remove(network, units), units), fitted_constants(network, [batch])).model
        expected = worlds.logits(np.tile(mask, (20, 1)), np.arange(20))
        away[crop] = float((output(folded, batch) - expected).abs().max())
    assert away[1] < 1e-5
    assert away[0] > 1e-3


def test_nothing_but_biases_and_running_means_changes():
    network = traced("residual")
    units = network.units[::2]
    pruned = remove(network, units)
    folded = fold_constants(State(network, pruned, units), fitted_constants(network, [fresh_batch(network)])).model
    changed = {k for k, v in folded.state_dict().items() if not torch.equal(v, pruned.state_dict()[k])}
    assert changed
    assert all(name.endswith(("bias", "running_mean")) for name in changed)


def test_a_layer_without_a_place_for_a_constant_is_named_and_left_alone():
    model = randomised(
        nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(80, 4)
        )
    )
    network = trace(model, torch.randn(2, 3, 8, 8))
    first, second = ([u for u in network.units if u.group == g][:2] for g in ("0", "2"))
    batch = fresh_batch(network)
    assert "conv" in unfolded(network, first)[0] or "2" in unfolded(network, first)[0]
    assert unfolded(network, second) == ()
    pruned = remove(network, first)
    constants = fitted_constants(network, [batch])
    assert_close(
        output(fold_constants(State(network, pruned, first), constants).model, batch), output(pruned, batch), 0
    )


@pytest.mark.parametrize("intervention", ["mean", "optimal"])
def test_it_repairs_a_trained_network_on_images_it_has_not_seen(intervention):
    network = trace(trained(), digits()[0][:2])
    units = network.select([u.name for g in network.groups for u in g.units[::4]])
    pruned = remove(network, units)
    fit, audit = batches(1000, 1256), batches(1256, 1512)
    repaired = repair_constants(State(network, pruned, units), fit, intervention=intervention).model
    before, after = (joint_effect(State(network, m, units), audit).mean for m in (pruned, repaired))
    assert after < 0.6 * before


def test_weights_stay_where_the_outcome_would_become_worse():
    network = traced("residual")
    batch = fresh_batch(network, count=24)
    units = network.units[:3]
    pruned = remove(network, units)

    def closeness(logits, dense, labels):
        return -(logits - dense).square().sum(dim=1)

    kept = repair_constants(State(network, pruned, units), [batch], outcome=closeness).model
    assert_same_snapshot(snapshot(pruned), snapshot(kept))
    with pytest.raises(InputError, match="has no constants"):
        repair_constants(State(network, copy.deepcopy(pruned), units), [batch], intervention="carried")
    with pytest.raises(InputError, match="no data"):
        repair_constants(State(network, pruned, units), [])
