"""The same function written in different ways has the same effects, curves, plans and repairs."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import whyprune as wp
from repair.equal_functions import KINDS, Spec, Written, ZeroInserted, twin
from structure.networks import randomised
from whyprune.causal.response.curves import response_curves
from whyprune.data.batches import as_batches
from whyprune.repair import reconstruct, repair
from whyprune.scoring.contract import Question
from whyprune.scoring.registry import SCORERS
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace

SPECS = {
    "chain": Spec(kernel=3, dilation=1, normalised=False, skip=False, activation="relu"),
    "norm": Spec(kernel=3, dilation=2, normalised=True, skip=False, activation="relu"),
    "residual": Spec(kernel=5, dilation=1, normalised=True, skip=True, activation="relu"),
    "grouped": Spec(kernel=3, dilation=1, normalised=True, skip=False, activation="gelu", groups=2),
    "depthwise": Spec(kernel=3, dilation=1, normalised=True, skip=False, activation="relu", groups=8),
    "even": Spec(kernel=4, dilation=1, normalised=False, skip=False, activation="silu"),
}
EVEN = ("same", "padded by hand")
"""The ways to write an even kernel whose output is as long as its input."""
ALIKE = {"rtol": 1e-6, "atol": 1e-8}


def signals(count, seed=1):
    return torch.randn(count, 3, 9, generator=torch.Generator().manual_seed(seed)).cumsum(2).double()


@cache
def pairs(name):
    """(the first way to write it, the others)."""
    kinds = EVEN if name == "even" else KINDS
    if name == "depthwise":  # a caller that names the number of groups keeps all channels
        kinds = tuple(kind for kind in kinds if kind != "functional")
    first = randomised(Written(SPECS[name], kinds[0])).double()
    return first, {kind: twin(first, Written(SPECS[name], kind).double()) for kind in kinds[1:]}


@cache
def traced(model):
    """Traced once for all tests: nothing changes a model."""
    return trace(model, signals(2))


def removed(model, every=3):
    network = traced(model)
    units = network.units[::every]
    return State(network, remove(network, units), units)


def assert_same_weights(first, second):
    for (name, one), (_, other) in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
        torch.testing.assert_close(other.reshape(one.shape), one, msg=lambda m, name=name: f"{name}: {m}", **ALIKE)


@pytest.mark.parametrize("name", SPECS)
def test_the_same_function_is_repaired_in_the_same_way(name):
    first, others = pairs(name)
    bare = removed(first)
    expected = repair(bare, [signals(30)])
    assert not torch.equal(expected.model.f.weight, bare.model.f.weight)
    for model in others.values():
        assert_same_weights(expected.model, repair(removed(model), [signals(30)]).model)


@pytest.mark.parametrize("name", ["residual", "grouped"])
def test_the_same_function_is_reconstructed_in_the_same_way(name):
    """Less tightly: derivatives are differences, and rounding shows in them."""
    first, others = pairs(name)

    def found(model):
        state = removed(model)
        return reconstruct(repair(state, [signals(40)]), [signals(40)], rounds=2, iterations=2).model(signals(20, 2))

    expected = found(first)
    for kind in ("2d", "same", "functional"):
        torch.testing.assert_close(found(others[kind]), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", SPECS)
def test_the_same_function_has_the_same_effects_and_curves(name):
    first, others = pairs(name)

    def found(model):
        network = traced(model)
        effects = SCORERS("exact")(network, list(as_batches([signals(12)], 1)), Question())
        return effects, response_curves(network, [signals(30)], [signals(12, seed=2)])

    effects, curves = found(first)
    assert curves
    for kind, model in others.items():
        own, its = found(model)
        assert own.units == effects.units
        np.testing.assert_allclose(own.mean, effects.mean, rtol=1e-4, atol=1e-7)
        streams_see_the_padding = kind == "padded by hand" and SPECS[name].skip
        for group in () if streams_see_the_padding else curves:
            assert its[group].order == curves[group].order
            np.testing.assert_allclose(its[group].effect, curves[group].effect, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("method", ["causal", "magnitude-l2"])
def test_the_same_function_gets_the_same_plan(method):
    first, others = pairs("norm")
    assert_same_plans(first, [others[kind] for kind in ("2d", "3d", "same", "padded by hand", "functional")], method)


def assert_same_plans(first, others, method):
    def found(model):
        result = wp.prune(
            model,
            list(signals(48).split(24)),
            budget=wp.Budget(macs=0.6),
            example_inputs=signals(2),
            method=method,
            settings=wp.Settings(refute=False, views=2, effect_passes=20, latency=False),
            progress=False,
        )
        return result.plan.units, result.model, result.measurements.joint_effect.measured

    units, model, effect = found(first)
    for other in others:
        its, repaired, measured = found(other)
        assert its == units
        assert_same_weights(model, repaired)
        assert measured == pytest.approx(effect, rel=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 4, "stride": 2, "padding": 1},
        {"kernel_size": 3, "stride": 3, "padding": 0, "output_padding": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "dilation": 2},
        {"kernel_size": 3, "stride": 2, "groups": 2},
        {"kernel_size": 2, "stride": 3, "groups": 8, "output_padding": 1},
        {"kernel_size": 5, "stride": 1, "padding": 2},
    ],
    ids=str,
)
def test_a_transposed_convolution_is_repaired_as_the_convolution_over_inserted_zeros(options):
    options = {"padding": 0, "output_padding": 0, "dilation": 1, **options}
    up = randomised(nn.ConvTranspose1d(8, 8, **options)).double()

    def network(layer):
        rest = randomised(nn.ModuleList([nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.Conv1d(8, 6, 1)]), seed=3).double()
        pool = [nn.AdaptiveAvgPool1d(1), nn.Flatten()]
        return nn.Sequential(rest[0], nn.ReLU(), layer, rest[1], nn.ReLU(), rest[2], *pool).eval()

    one, other = network(up), network(ZeroInserted(up))
    torch.testing.assert_close(one(signals(3)), other(signals(3)))
    states = [removed(model, every=4) for model in (one, other)]
    assert [u.name for u in states[0].removed] == [u.name for u in states[1].removed]
    first, second = (repair(state, [signals(30)]).model for state in states)
    carries_on = options.get("groups") == 8  # then the layer loses nothing that the others could make up for
    assert carries_on == torch.allclose(states[0].model[2].weight, first[2].weight, rtol=1e-3)
    torch.testing.assert_close(ZeroInserted(first[2]).weight, second[2].weight, **ALIKE)
    for place in (0, 3, 5):
        torch.testing.assert_close(first[place].weight, second[place].weight, **ALIKE)
        torch.testing.assert_close(first[place].bias, second[place].bias, **ALIKE)
    with torch.no_grad():
        trained = [model.train()(signals(30)) for model in (first, second)]
    torch.testing.assert_close(*trained, rtol=1e-5, atol=1e-6)
    curves = [response_curves(state.network, [signals(30)], [signals(12, seed=2)]) for state in states]
    for group, curve in curves[0].items():
        assert curves[1][group].order == curve.order
        np.testing.assert_allclose(curves[1][group].effect, curve.effect, rtol=1e-5, atol=1e-8)


class Places(nn.Module):
    """Channels of a signal mixed place by place, by a convolution or by a linear layer."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear
        kind = nn.Linear if linear else lambda i, o: nn.Conv1d(i, o, 1)
        self.a, self.b, self.c = kind(3, 8), kind(8, 8), kind(8, 5)

    def forward(self, x):
        x = x.transpose(1, 2) if self.linear else x
        x = self.c(torch.relu(self.b(torch.relu(self.a(x)))))
        return x.mean(1 if self.linear else 2)


def test_a_linear_layer_over_places_is_a_convolution_of_one_place():
    conv = randomised(Places(False)).double()
    linear = twin(conv, Places(True).double())
    one, other = (repair(removed(model), [signals(30)]).model for model in (conv, linear))
    assert_same_weights(one, other)
    assert_same_plans(conv, [linear], "causal")
