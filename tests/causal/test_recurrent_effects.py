"""Hidden units of recurrent layers are read inside as well: effects, first derivatives and curves see that."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whyprune as wp
from structure.networks import randomised
from whyprune.causal.exact import exact_effects
from whyprune.causal.response.curves import response_curves
from whyprune.effects.joint import joint_effect
from whyprune.interventions.sensitivity import sensitivity
from whyprune.interventions.worlds import Worlds
from whyprune.repair import repair
from whyprune.structure.remove import remove
from whyprune.structure.replay import Replay
from whyprune.structure.state import State

KINDS = {
    "lstm": lambda: nn.LSTM(5, 6, batch_first=True),
    "both ways, two layers": lambda: nn.LSTM(5, 3, 2, bidirectional=True, batch_first=True),
    "gru": lambda: nn.GRU(5, 6, batch_first=True),
    "rnn": lambda: nn.RNN(5, 6, batch_first=True),
    "lstm cell": lambda: nn.LSTMCell(5, 6),
    "rnn cell": lambda: nn.RNNCell(5, 6),
}


class Sequences(nn.Module):
    """Features of every step, a recurrent layer or cell over them, and a linear layer on the last step."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.into, self.part, self.head, self.width = nn.Linear(4, 5), part, nn.Linear(6, 3), part.hidden_size

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        if isinstance(self.part, nn.RNNBase):
            return self.head(self.part(x)[0][:, -1])
        held = torch.zeros(x.shape[0], self.width)
        states = (held, held) if isinstance(self.part, nn.LSTMCell) else held
        for step in range(x.shape[1]):
            states = self.part(x[:, step], states)
        return self.head(states[0] if isinstance(states, tuple) else states)


def drawn(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 5, 4, generator=torch.Generator().manual_seed(seed))


def traced(kind: str) -> wp.Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return wp.trace(randomised(Sequences(KINDS[kind]())), drawn(2))


@torch.no_grad()
def by_hand(network, x, masks, outcome):
    """Effects (sets, images) in the network whose parameters of the set's units are zero."""
    dense, found = network.model(x), []
    for mask in masks:
        units = [u for u, gone in zip(network.units, mask, strict=True) if gone]
        found.append(outcome(wp.masked(network, units)(x), dense, None).numpy())
    return np.array(found)


@pytest.mark.parametrize("kind", KINDS)
def test_effects_and_worlds_are_those_of_the_masked_network(kind):
    network, x = traced(kind), drawn(6)
    outcome = wp.ClassLogit(1)
    alone = np.eye(len(network.units), dtype=bool)
    expected = by_hand(network, x, alone, outcome)
    assert {u.group for u in network.units} == {"into", "part"}
    np.testing.assert_allclose(
        exact_effects(network, [x], outcome=outcome, per_image=True).per_image, expected, atol=2e-6
    )
    masks = np.random.default_rng(0).random((6, len(network.units))) < 0.4
    images = np.arange(6)
    found = Worlds(network, [x], outcome=outcome).effects(masks, images)
    np.testing.assert_allclose(found, np.diagonal(by_hand(network, x, masks, outcome)), atol=2e-6)


@pytest.mark.parametrize("kind", ["lstm", "both ways, two layers", "gru", "rnn"])
def test_first_derivatives_are_those_of_a_small_intervention(kind):
    """Hidden units read a little less of what they were: columns and rows of weights, scaled by 1 - h."""
    network, x, h = traced(kind), drawn(4).double(), 1e-5
    model = network.model.double()
    network = wp.trace(model, x[:2])
    found = sensitivity(Replay(network), [x], wp.ClassLogit(1)).first.double().numpy()
    for k, unit in enumerate(network.units):
        if unit.group != "part":
            continue
        less = _read_less(model, unit, h)
        with torch.no_grad():
            moved = wp.ClassLogit(1)(less(x), model(x), None).numpy() / h
        np.testing.assert_allclose(found[k], moved, rtol=1e-3, atol=1e-4)


def _read_less(model: nn.Module, unit: wp.Unit, h: float) -> nn.Module:
    """The network in which all that reads a hidden unit sees 1 - h of it."""
    found = deepcopy(model)
    index = int(unit.name.rpartition(":")[2])
    width = found.part.hidden_size
    with torch.no_grad():
        found.head.weight[:, index::width] *= 1 - h
        for name, weight in found.part.named_parameters():
            if "weight_hh" in name or (name.startswith("weight_ih") and not name.startswith("weight_ih_l0")):
                weight[:, index::width] *= 1 - h
    return found


@pytest.mark.parametrize("kind", ["lstm", "both ways, two layers"])
def test_a_curve_credits_no_refit_of_the_inside(kind):
    """The linear layer behind takes all units at once; what it predicts must hold when they are gone inside too."""
    network, x = traced(kind), drawn(64)
    curve = response_curves(network, [x], [drawn(40, 2)])["part"]
    half = int(curve.removed[len(curve.removed) // 2])
    units = network.select(curve.order[:half])
    pruned = repair(State(network, remove(network, units), tuple(units)), [x])
    measured = joint_effect(pruned, [drawn(40, 2)]).mean
    predicted = float(curve.effect[list(curve.removed).index(half)])
    assert measured == pytest.approx(predicted, rel=0.5)


class Spectrum(nn.Module):
    """Complex outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.head = nn.Linear(4, 7), nn.Linear(7, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(self.head(torch.relu(self.into(x.mean(1)))))


class Two(nn.Module):
    """Two inputs that never meet, and an embedding of each."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 6))

    def forward(self, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        return self.body(one.mean(1)), self.body(other.mean(1))


@pytest.mark.parametrize("model", [Spectrum(), Two()], ids=["complex", "two inputs"])
def test_outputs_that_are_complex_or_of_inputs_that_never_meet_count(model):
    inputs = (drawn(8), drawn(8, 2))[: 1 + isinstance(model, Two)]
    network = wp.trace(randomised(model), tuple(v[:2] for v in inputs))
    assert all(t.counts for t in network.outputs.tensors)
    found = exact_effects(network, [inputs], per_image=True).per_image

    def rows(module):
        out = module(*inputs)
        return [torch.view_as_real(t) if t.is_complex() else t for t in (out if isinstance(out, tuple) else (out,))]

    with torch.no_grad():
        dense = rows(network.model)
        for unit, mean in zip(network.units, found, strict=True):
            parts = zip(rows(wp.masked(network, [unit])), dense, strict=True)
            shares = [(a - b).square().flatten(1).mean(1) / b.var(0, correction=0).mean() for a, b in parts]
            np.testing.assert_allclose(mean, torch.stack(shares).mean(0).numpy(), rtol=1e-4, atol=1e-6)
