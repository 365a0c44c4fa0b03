"""Recurrent layers and cells: what they cost, and removal of what goes in and of hidden units."""

import pytest
import torch
from torch import Tensor, nn

from whyprune import remove, trace, verify
from whyprune.errors import FormatError
from whyprune.structure.plan import make_plan, replay_plan

STEPS, IN, HIDDEN = 7, 8, 6


class Sequence(nn.Module):
    """A linear layer, a recurrent one, and a linear one on its last step."""

    def __init__(self, kind: type[nn.RNNBase], **how: object) -> None:
        super().__init__()
        self.first = how.get("batch_first", True)
        self.embed = nn.Linear(5, IN)
        self.layer = kind(IN, HIDDEN, **{"batch_first": True, **how})
        self.head = nn.Linear((how.get("proj_size") or HIDDEN) * (2 if how.get("bidirectional") else 1), 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.embed(x))
        out = self.layer(x)[0][:, -1] if self.first else self.layer(x.transpose(0, 1))[0][-1]
        return self.head(out)


class Steps(nn.Module):
    """The same, step by step with a cell."""

    def __init__(self, kind: type[nn.RNNCellBase]) -> None:
        super().__init__()
        self.embed, self.cell, self.head, self.width = nn.Linear(5, IN), kind(IN, HIDDEN), nn.Linear(HIDDEN, 3), HIDDEN

    def forward(self, x: Tensor) -> Tensor:
        x, state = torch.tanh(self.embed(x)), torch.zeros(x.shape[0], self.width)
        states = (state, state) if isinstance(self.cell, nn.LSTMCell) else state
        for step in range(x.shape[1]):
            states = self.cell(x[:, step], states)
        return self.head(states[0] if isinstance(states, tuple) else states)


def by_hand(module: nn.Module) -> int:
    """Every matrix of a recurrent layer is multiplied once in every step."""
    return STEPS * sum(p.numel() for p in module.parameters() if p.dim() == 2)


CASES = {
    "lstm": lambda: Sequence(nn.LSTM),
    "both ways, two layers": lambda: Sequence(nn.LSTM, num_layers=2, bidirectional=True),
    "sequence first": lambda: Sequence(nn.LSTM, num_layers=2, batch_first=False),
    "gru": lambda: Sequence(nn.GRU, num_layers=2, bidirectional=True),
    "relu": lambda: Sequence(nn.RNN, nonlinearity="relu", bias=False),
    "tanh": lambda: Sequence(nn.RNN),
    "lstm cell": lambda: Steps(nn.LSTMCell),
    "gru cell": lambda: Steps(nn.GRUCell),
    "cell": lambda: Steps(nn.RNNCell),
}


@pytest.mark.parametrize("name", [*CASES, "projected"])
def test_a_recurrent_layer_costs_its_matrices_in_every_step(name: str) -> None:
    model = (CASES | {"projected": lambda: Sequence(nn.LSTM, proj_size=4)})[name]().eval()
    rest = STEPS * model.embed.weight.numel() + model.head.weight.numel()
    layer = model.layer if hasattr(model, "layer") else model.cell
    assert trace(model, torch.randn(2, STEPS, 5)).cost().macs == rest + by_hand(layer)


@pytest.mark.parametrize("name", CASES)
def test_hidden_units_and_input_features_go(name: str) -> None:
    torch.manual_seed(0)
    model, x = CASES[name]().eval(), torch.randn(4, STEPS, 5)
    network = trace(model, x[:2])
    units = [unit for group in network.groups for unit in group.units[::2]]
    pruned = remove(network, units)
    layer = pruned.layer if hasattr(pruned, "layer") else pruned.cell
    name = "layer" if hasattr(pruned, "layer") else "cell"
    assert {g.name: g.width for g in network.groups} == {"embed": IN, name: HIDDEN}
    assert (layer.input_size, layer.hidden_size) == (IN // 2, HIDDEN // 2)
    assert verify(network, pruned, units, [x]).max_abs_difference < 1e-5
    fresh = trace(pruned, x[:2]).cost()
    assert (network.cost(units).macs, network.cost(units).params) == (fresh.macs, fresh.params)


def test_hidden_units_carry_a_mark_and_a_projection_is_kept() -> None:
    network = trace(CASES["lstm"]().eval(), torch.randn(2, STEPS, 5))
    assert {u.marks for u in network.group("layer").units} == {("lstm",)}
    kept = trace(Sequence(nn.LSTM, proj_size=4).eval(), torch.randn(2, STEPS, 5))
    assert not kept.units
    assert any("lstm" in r.reason for r in kept.refusals)


@pytest.mark.parametrize("part", ["weight_ih_l0", "weight_hh_l1_reverse", "bias_hh_l1"])
def test_a_plan_that_leaves_a_layer_with_parts_that_do_not_fit_is_refused(part: str) -> None:
    model = CASES["both ways, two layers"]().eval()
    network = trace(model, torch.randn(2, STEPS, 5))
    plan = make_plan(network, network.group("layer").units[:2])
    assert replay_plan(model, plan).layer.hidden_size == HIDDEN - 2
    rest = [entry for entry in plan.removed if entry.parameter != f"layer.{part}"]
    with pytest.raises(FormatError, match="do not fit"):
        replay_plan(model, plan.model_copy(update={"removed": tuple(rest)}))


def test_a_pruned_layer_trains() -> None:
    torch.manual_seed(0)
    network = trace(CASES["gru"]().eval(), torch.randn(2, STEPS, 5))
    pruned = remove(network, [u for g in network.groups for u in g.units[:2]]).train()
    pruned(torch.randn(2, STEPS, 5)).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in pruned.parameters())
