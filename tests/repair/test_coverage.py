"""What cannot be refitted is named with its reason; nothing else is, and no curve counts on it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import whyprune as wp
from repair.repaired_networks import NAMES, harm
from structure.networks import randomised, traced
from whyprune.causal.response.curves import response_curves
from whyprune.cli.tables import network_tables
from whyprune.data.batches import as_batches
from whyprune.repair import repair
from whyprune.repair.coverage import sentence, unrefitted
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace
from whyprune.workspace.describe import describe


class Middle(nn.Module):
    """A convolution, then what `kind` says reads its channels, then a linear layer."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.a, self.b, self.head = nn.Conv1d(3, 8, 3, padding=1), None, nn.Linear(8, 4)
        if kind not in ("product", "einsum", "fixed filter", "part", "another shape"):
            self.b = nn.Conv1d(8, 8, 3, padding=1)
        if kind in ("product", "einsum", "part", "another shape"):
            self.w = nn.Parameter(torch.zeros(8, 8))
        if kind == "spectral":
            nn.utils.spectral_norm(self.b)
        if kind == "weight norm":
            nn.utils.parametrizations.weight_norm(self.b)
        if kind == "fixed filter":
            self.register_buffer("kernel", torch.zeros(8, 8, 3))
        if kind == "plain norm":
            self.norm = nn.BatchNorm1d(8, affine=False)
        if kind == "shared norm":
            self.norm = nn.BatchNorm1d(8)

    def forward(self, x):
        x = torch.relu(self.a(x))
        if self.kind == "twice":
            x = self.b(torch.relu(self.b(x)))
        elif self.kind == "product":
            x = (x.transpose(1, 2) @ self.w).transpose(1, 2)
        elif self.kind == "einsum":
            x = torch.einsum("bct,cd->bdt", x, self.w)
        elif self.kind == "fixed filter":
            x = F.conv1d(x, self.kernel)
        elif self.kind == "part":
            x = F.linear(x.transpose(1, 2), self.w[:4]).transpose(1, 2)
            x = torch.cat([x, x], 1)
        elif self.kind == "another shape":
            x = F.conv1d(x, self.w[:, :, None])
        elif self.kind == "shared norm":
            x = self.norm(torch.relu(self.norm(self.b(x))))
        elif self.kind == "plain norm":
            x = self.norm(self.b(x))
        else:
            x = self.b(x)
        return self.head(torch.relu(x).mean(2))


REASONS = {
    "twice": "its weight is used more than once",
    "spectral": "its weight is computed from other tensors",
    "product": "a product written by hand (matmul) is not refitted",
    "einsum": "a product written by hand (einsum) is not refitted",
    "fixed filter": "its weight is no parameter",
    "another shape": "its weight is a parameter in another shape",
    "plain norm": "the batch norm behind it has no scale and shift",
    "shared norm": "the batch norm behind it is used more than once",
}


def model_of(kind):
    return randomised(Middle(kind))


def signals(count, seed=1):
    return torch.randn(count, 3, 8, generator=torch.Generator().manual_seed(seed)).cumsum(2)


def pruned(kind):
    network = trace(model_of(kind), signals(2))
    units = [network.units[k] for k in (1, 4, 5)]
    return State(network, remove(network, units), units)


@pytest.mark.parametrize("kind", REASONS)
def test_what_is_not_refitted_is_named_with_its_reason(kind):
    state = pruned(kind)
    for start in (state, state.network):
        named = unrefitted(start)
        assert named
        assert all(REASONS[kind] in layer.reason for layer in named)
        assert all("test_coverage.py" in layer.where or layer.where.startswith("b") for layer in named)
    repaired = repair(state, [signals(80)]).model
    for name in ("b.weight", "b.weight_orig", "w", "kernel"):
        old, new = state.model.state_dict().get(name), repaired.state_dict().get(name)
        assert old is None or torch.equal(old, new)
    assert harm(state.network, repaired, next(iter(as_batches([signals(80)], 1)))) >= 0


@pytest.mark.parametrize("kind", ["plain", "weight norm"])
def test_what_is_refitted_is_not_named(kind):
    state = pruned(kind)
    assert unrefitted(state) == unrefitted(state.network) == ()
    assert sentence(unrefitted(state)) == ""


@pytest.mark.parametrize("name", NAMES)
def test_ordinary_networks_are_refitted_whole(name):
    assert unrefitted(traced(name)) == ()


def test_a_layer_that_lost_nothing_is_not_named():
    network = trace(model_of("twice"), signals(2))
    assert unrefitted(State(network, network.model, ())) == ()


def test_weight_normalisation_changes_no_repair():
    plain, normed = pruned("plain"), pruned("weight norm")
    with torch.no_grad():
        for mine, its in ((normed.model, plain.model), (normed.network.model, plain.network.model)):
            mine.load_state_dict({k: v for k, v in its.state_dict().items() if k != "b.weight"}, strict=False)
            mine.b.weight = its.b.weight.detach()
    one, other = (repair(State(s.network, s.model, s.removed), [signals(80)]).model for s in (plain, normed))
    assert not torch.allclose(one.b.weight, plain.model.b.weight, rtol=1e-2)
    torch.testing.assert_close(other.b.weight, one.b.weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(other(signals(9)), one(signals(9)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["product", "einsum", "fixed filter", "another shape"])
def test_a_curve_is_what_removal_does_where_nothing_can_be_refitted(kind):
    """The channels' only reader stays as it is: each width costs what it costs without repair."""
    network = trace(model_of(kind), signals(2))
    curve = response_curves(network, [signals(80)], [signals(40, seed=2)])["a"]
    batch = next(iter(as_batches([signals(40, seed=2)], 1)))
    for point, count in enumerate(curve.removed[1:], start=1):
        left = remove(network, network.select(curve.order[:count]))
        assert curve.effect[point] == pytest.approx(harm(network, left, batch), rel=1e-3, abs=1e-6)
    assert (np.diff(curve.effect) > 0).any()


def test_a_run_says_it_in_its_notes_and_inspect_lists_it():
    result = wp.prune(
        model_of("spectral"),
        list(signals(96).split(32)),
        budget=wp.Budget(macs=0.7),
        example_inputs=signals(2),
        method="magnitude-l2",
        settings=wp.Settings(refute=False, views=1),
        progress=False,
    )
    (note,) = [n for n in result.measurements.notes if "not refitted" in n]
    assert note.startswith("1 layer that lost channels was not refitted: b (")
    assert REASONS["spectral"] in note
    said = describe(result.network)["unrefitted"]
    assert [entry["reason"] for entry in said] == [layer.reason for layer in unrefitted(result.network)]
    titles = [getattr(part, "title", None) for part in network_tables(result.network).renderables]
    assert "Layers that lose channels and cannot be refitted" in titles


def test_a_long_list_is_cut():
    found = unrefitted(trace(model_of("twice"), signals(2))) * 6
    assert sentence(found).endswith(f"and {len(found) - 4} more.")


def test_a_run_says_where_the_refit_was_not_kept():
    """The outcome rewards damage: refitted weights would make it worse."""

    def closeness(logits, dense, labels):
        return -(logits - dense).square().sum(dim=1)

    def notes(outcome):
        result = wp.prune(
            model_of("plain"),
            list(signals(96).split(32)),
            budget=wp.Budget(macs=0.7),
            example_inputs=signals(2),
            method="magnitude-l2",
            outcome=outcome,
            settings=wp.Settings(refute=False, views=1),
            progress=False,
        )
        return [n for n in result.measurements.notes if n.startswith("Repair left all weights as they were")]

    assert len(notes(closeness)) == 1
    assert not notes(None)
