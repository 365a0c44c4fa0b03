"""Taylor over normalisations against derivatives by the parameters of the user's own module, image by image."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tiny
from structure.networks import traced
from structure.removal_property import fresh_batch
from whyprune.criteria import taylor, taylor_bn
from whyprune.errors import InputError
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace


def by_parameters(model, images, labels, indices):
    """mean |sum of w * dL/dw over (parameter, index) pairs| over images; `indices`: unit -> pairs."""
    parameters, total = dict(model.named_parameters()), dict.fromkeys(indices, 0.0)
    for image, label in zip(images, labels, strict=True):
        loss = F.cross_entropy(model(image[None]), label[None])
        found = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
        for unit, pairs in indices.items():
            terms = [(parameters[name][k] * found[name][k]).sum().item() for name, k in pairs]
            total[unit] += abs(sum(terms))
    return {unit: value / len(images) for unit, value in total.items()}


NORMS = {"stem.0": ["stem.1", "outer.1"], "inner.0": ["inner.1"], "wide.0": ["wide.1"]}


@pytest.mark.parametrize("pruned", [False, True])
def test_it_is_scale_and_shift_times_their_gradients_summed_over_coupled_layers(pruned):
    network = trace(tiny.trained(), tiny.digits()[0][:2])
    gone = ["inner.0:3", "stem.0:0", "wide.0:11"] if pruned else []
    state = remove(State.of(network), gone)
    images, labels = (part[:6] for part in tiny.batches(0, 64)[0])
    indices = {}
    for group in network.groups:
        left = [u for u in group.units if u.name not in gone]
        for place, unit in enumerate(left):
            norms = NORMS[group.name]
            indices[unit.name] = [(f"{norm}.{part}", place) for norm in norms for part in ("weight", "bias")]
    expected = by_parameters(state.model, images, labels, indices)
    found = taylor_bn(state, [(images, labels)], outcome="cross-entropy").by_unit()
    assert found.keys() == expected.keys()
    for unit, value in expected.items():
        assert found[unit] == pytest.approx(value, rel=1e-3, abs=1e-6), unit


def test_without_a_normalisation_it_is_weight_and_bias_times_their_gradients():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [
            nn.Conv2d(3, 5, 3),
            nn.ReLU(),
            nn.ConvTranspose2d(5, 4, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, 3),
        ]
        model = nn.Sequential(*layers).eval()
    network = trace(model, torch.zeros(2, 3, 8, 8))
    images, labels = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 1])
    indices = {f"0:{k}": [("0.weight", k), ("0.bias", k)] for k in range(5)}
    indices |= {f"2:{k}": [("2.weight", (slice(None), k)), ("2.bias", k)] for k in range(4)}
    expected = by_parameters(model, images, labels, indices)
    found = taylor_bn(network, [(images, labels)], outcome="cross-entropy").by_unit()
    for unit, value in expected.items():
        assert found[unit] == pytest.approx(value, rel=1e-3, abs=1e-7), unit


def test_how_images_are_batched_does_not_matter():
    network = trace(tiny.trained(), tiny.digits()[0][:2])
    images, labels = tiny.batches(0, 64)[0]
    whole = taylor_bn(network, [(images, labels)], outcome="cross-entropy").mean
    parts = taylor_bn(network, list(zip(images.split(5), labels.split(5), strict=True)), outcome="cross-entropy").mean
    np.testing.assert_allclose(parts, whole, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    "name", ["operation: layer norm", "operation: group norm", "pre-activation", "concat", "sequence", "tied"]
)
def test_every_unit_has_a_score_whatever_normalises_it(name):
    network = traced(name)
    found = taylor_bn(network, [fresh_batch(network)]).mean
    assert np.isfinite(found).all()
    assert (found > 0).mean() > 0.5


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.GRU(5, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


def test_units_that_no_layer_with_a_plain_weight_writes_are_scored_where_they_are_read():
    network = trace(Recurrent().eval(), torch.zeros(2, 4, 5))
    batch = [(torch.randn(8, 4, 5), torch.arange(8) % 3)]
    found = taylor_bn(network, batch, outcome="cross-entropy")
    np.testing.assert_array_equal(found.mean, taylor(network, batch, outcome="cross-entropy").mean)
    assert (found.mean > 0).all()


def test_it_needs_images_and_labels_where_the_outcome_does():
    network = traced("residual")
    with pytest.raises(InputError, match="no data"):
        taylor_bn(network, [])
    with pytest.raises(InputError, match="needs labels"):
        taylor_bn(network, [fresh_batch(network)], outcome="cross-entropy")
