"""What the network gives under do(S := v), row by row, is what it gives with hooks and one set at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from causal.oracles import carried_value, hooked, logits
from structure.networks import CASES, randomised, traced
from structure.removal_property import fresh_batch
from tiny import batches, digits, trained
from whyprune.causal.exact import exact_effects
from whyprune.effects.outcomes import LogitShift
from whyprune.errors import InputError
from whyprune.interventions.worlds import Worlds
from whyprune.structure.remove import remove, zeroed
from whyprune.structure.state import State
from whyprune.structure.trace import trace

TOLERANCE = 1e-5
NETWORKS = [n for n in CASES if CASES[n].removable and n != "operation: instance norm"]


def random_rows(worlds, count, rate=0.3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((count, len(worlds.units))) < rate, rng.integers(0, worlds.images, count)


def assert_equal(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_are_what_the_masked_networks_give(name):
    network = traced(name)
    if name == "two outputs":  # the oracle sees the first
        network = replace(network, outputs=network.outputs.chosen(0))
    batch = fresh_batch(network)
    worlds = Worlds(network, [batch])
    masks, images = random_rows(worlds, 7)
    masks[0] = False
    dense = logits(network.model, batch)
    outcome = LogitShift().fit(dense)
    expected = []
    for mask, image in zip(masks, images, strict=True):
        alone = batch[torch.tensor([image])]
        gone = [u for u, out in zip(worlds.units, mask, strict=True) if out]
        expected.append(float(outcome(logits(zeroed(network, gone), alone), logits(network.model, alone), None)[0]))
    assert_equal(worlds.effects(masks, images), np.array(expected))
    assert worlds.effects(masks, images)[0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("value", ["zero", "carried"])
def test_sets_in_one_layer_are_what_hooks_give(value):
    """One reader, so that the hook's carried value is the one of the whole set."""
    network = traced("flatten")
    batch = fresh_batch(network, count=400)
    worlds = Worlds(network, [batch], intervention=value)
    rng = np.random.default_rng(1)
    values = {"zero": lambda x, features, _: 0 * x[:, features], "carried": carried_value}
    for _ in range(3):
        chosen = rng.choice(len(worlds.units), 3, replace=False)
        mask = np.zeros(len(worlds.units), dtype=bool)
        mask[chosen] = True
        places = [int(worlds.units[k].name.rpartition(":")[2]) for k in chosen]
        expected = hooked(network.model, {"head": 16}, places, values[value], batch)
        assert_equal(worlds.logits(np.tile(mask, (400, 1)), np.arange(400)).numpy(), expected.numpy())


@pytest.mark.parametrize("value", ["zero", "mean", "optimal", "carried", "resample"])
def test_single_units_have_their_exact_effects(value):
    network = trace(trained(), digits()[0][:2])
    data = batches(1000, 1064)
    worlds = Worlds(network, data, intervention=value)
    exact = exact_effects(network, data, intervention=value, per_image=True)
    count = len(worlds.units)
    masks = np.repeat(np.eye(count, dtype=bool), worlds.images, axis=0)
    found = worlds.effects(masks, np.tile(np.arange(worlds.images), count)).reshape(count, -1)
    if value == "resample":  # donors differ at the edges of blocks
        assert np.median(np.abs(found - exact.per_image)) < TOLERANCE
    else:
        assert_equal(found, exact.per_image)


def test_rows_do_not_depend_on_their_neighbours():
    network = trace(trained(), digits()[0][:2])
    for value in ("zero", "mean", "optimal", "carried", "resample"):
        worlds = Worlds(network, batches(1000, 1032), intervention=value)
        masks, images = random_rows(worlds, 40, rate=0.2)
        order = np.random.default_rng(2).permutation(40)
        together = worlds.effects(masks, images)
        assert_equal(worlds.effects(masks[order], images[order]), together[order])
        assert_equal(worlds.effects(masks[:1], images[:1]), together[:1])


def test_effects_in_a_pruned_network_are_beyond_what_is_gone():
    network = trace(trained(), digits()[0][:2])
    gone = network.select([u.name for g in network.groups for u in g.units[:2]])
    data = batches(1000, 1032)
    worlds = Worlds(remove(State.of(network), gone), data)
    whole = Worlds(network, data)
    masks, images = random_rows(worlds, 20)
    names = [u.name for u in worlds.units]
    wide = np.zeros((20, len(whole.units)), dtype=bool)
    for k, unit in enumerate(whole.units):
        wide[:, k] = masks[:, names.index(unit.name)] if unit.name in names else True
    base = whole.joint(np.isin([u.name for u in whole.units], [u.name for u in gone]))
    assert_equal(worlds.effects(masks, images), whole.effects(wide, images) - base[images])


def test_answers_cost_what_runs():
    network = trace(trained(), digits()[0][:2])
    worlds = Worlds(network, batches(1000, 1032))
    spent = worlds.forward_passes
    assert spent == 32
    everything = np.ones((10, len(worlds.units)), dtype=bool)
    worlds.effects(everything, np.arange(10))
    first = worlds.forward_passes - spent
    assert first == pytest.approx(10)  # ten images once; all that is behind the first layer once more is that same run
    last = np.zeros((64, len(worlds.units)), dtype=bool)
    last[:, -1] = True
    spent = worlds.forward_passes
    worlds.effects(last, np.zeros(64, dtype=np.int64))
    assert worlds.forward_passes - spent < 3  # one image once, and the last layer for every row


class Pairs(nn.Module):
    """Runs on two images at a time."""

    def __init__(self):
        super().__init__()
        self.one, self.head = nn.Linear(5, 6), nn.Linear(6, 4)

    def forward(self, x):
        return self.head(torch.relu(self.one(x)).view(2, -1))


def test_a_network_of_one_batch_size_is_asked_in_its_blocks():
    model = randomised(Pairs())
    images = torch.randn(7, 5)
    network = trace(model, images[:2])
    assert network.graph.batch_size == 2
    worlds = Worlds(network, [images])
    masks, rows = random_rows(worlds, 9)
    with torch.no_grad():
        hidden = torch.relu(model.one(images[rows]))
        expected = model.head(hidden * ~torch.from_numpy(masks))
    assert_equal(worlds.logits(masks, rows).numpy(), expected.numpy())


def test_unusable_requests_are_refused():
    network = trace(trained(), digits()[0][:2])
    with pytest.raises(InputError, match="no data"):
        Worlds(network, [])
    with pytest.raises(InputError, match="needs labels"):
        Worlds(network, [digits()[0][:4]], outcome="cross-entropy")
    worlds = Worlds(network, [digits()[0][:4]])
    with pytest.raises(InputError, match="masks of shape"):
        worlds.effects(np.zeros((2, 3), dtype=bool), np.zeros(2, dtype=np.int64))
    with pytest.raises(InputError, match="at least 2"):
        Worlds(network, [digits()[0][:1]], outcome="prediction-change", intervention="resample").effects(
            np.ones((1, len(worlds.units)), dtype=bool), np.zeros(1, dtype=np.int64)
        )
