"""Following the dense network: channels meet its channels, and a network that lost nothing has nothing to follow."""

import copy

import pytest
import torch
from torch import nn

import tiny
from whyprune.errors import InputError
from whyprune.recovery import Recovery, matched_layers, recover
from whyprune.recovery.features import Tap, feature_loss
from whyprune.structure.remove import masked, remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace


@pytest.fixture(scope="module")
def network():
    return trace(tiny.trained(), tiny.digits()[0][:2])


@pytest.fixture(scope="module")
def units(network):
    return [u for g in network.groups for u in g.units[::3]]


def test_every_layer_that_reads_channels_is_there_with_those_that_are_left(network, units):
    found = {t.module: t.kept.tolist() for t in matched_layers(remove(State.of(network), units))}
    assert set(found) == {"inner.0", "outer.0", "wide.0", "head"}
    pruned = remove(network, units)
    for name, kept in found.items():
        assert len(kept) == pruned.get_submodule(name).weight.shape[1]
    gone = {u.index for u in units if u.group == "inner.0"}
    assert found["outer.0"] == [k for k in range(10) if k not in gone]


def test_the_loss_is_the_distance_to_the_dense_network(network, units):
    """Oracle: by hooks on the masked original, whose kept channels are the pruned network's."""
    pruned, dense = remove(network, units), copy.deepcopy(network.model)
    layers = matched_layers(State(network, pruned, units))
    one, two = Tap(pruned, layers), Tap(dense, layers)
    held = {t.module: [] for t in layers}
    hidden = masked(network, units)
    for model in (hidden, network.model):
        handles = [
            model.get_submodule(name).register_forward_pre_hook(lambda _, args, name=name: held[name].append(args[0]))
            for name in held
        ]
        with torch.no_grad():
            model(tiny.digits()[0][:32])
        for handle in handles:
            handle.remove()
    with torch.no_grad():
        pruned(tiny.digits()[0][:32])
        dense(tiny.digits()[0][:32])
    expected = []
    for layer in layers:
        ours, theirs = (x.index_select(1, layer.kept) for x in held[layer.module])
        expected.append((ours - theirs).square().mean() / theirs.var())
    torch.testing.assert_close(feature_loss(one, two), torch.stack(expected).mean())


def test_a_network_that_lost_nothing_has_nothing_to_follow(network):
    layers = matched_layers(State.of(network))
    one, two = Tap(copy.deepcopy(network.model), layers), Tap(copy.deepcopy(network.model), layers)
    for tap in (one, two):
        tap.network(tiny.digits()[0][:8])
    assert float(feature_loss(one, two)) == 0


def distance(network, units, model):
    layers = matched_layers(State(network, model, units))
    one, two = Tap(copy.deepcopy(model).eval(), layers), Tap(copy.deepcopy(network.model), layers)
    with torch.no_grad():
        for tap in (one, two):
            tap.network(tiny.digits()[0][1000:1200])
    return float(feature_loss(one, two))


def test_training_that_follows_comes_nearer_to_the_dense_network_inside(network, units):
    state = remove(State.of(network), units)
    pruned = state.model
    ends = {}
    for follow in (0.0, 5.0):
        recovery = Recovery(epochs=3, learning_rate=0.01, distill=0.5, follow=follow, validation_fraction=0)
        data = tiny.batches(0, 640)
        ends[follow] = recover(state, data, recovery, progress=False).model
    assert distance(network, units, ends[5.0]) < distance(network, units, ends[0.0])
    assert distance(network, units, ends[5.0]) < distance(network, units, pruned)
    assert not any(m._forward_pre_hooks for m in ends[5.0].modules())
    assert not any(m._forward_pre_hooks for m in pruned.modules())


def test_unusable_requests_are_refused(network, units):
    pruned, data = remove(network, units), tiny.batches(0, 64)
    with pytest.raises(InputError, match="no layer to follow"):
        recover(pruned, data, Recovery(follow=1.0), dense=network.model, progress=False)
    with pytest.raises(InputError, match="no dense network"):
        recover(pruned, data, Recovery(follow=1.0), progress=False)
    with pytest.raises(InputError, match="no layer"):
        Tap(nn.Linear(2, 2), matched_layers(State(network, pruned, units)))
