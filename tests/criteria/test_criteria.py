"""Criteria against their formulas."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from structure.networks import traced
from structure.removal_property import fresh_batch
from whyprune.causal.exact import exact_effects
from whyprune.criteria import magnitude, random_scores, taylor
from whyprune.data.batches import Batch
from whyprune.effects.outcomes import ClassLogit
from whyprune.errors import InputError
from whyprune.structure.trace import trace
from whyprune.testing import planted

LABELS = torch.tensor([0, 1, 1, 0, 1])


@pytest.mark.parametrize("order", [1, 2])
def test_magnitude_is_the_mean_over_the_coupled_weights(order):
    network = traced("residual")
    model = network.model
    scores = magnitude(network, order=order).by_unit()

    def power(weights):
        return float(weights.detach().abs().pow(order).sum())

    for unit in network.units:
        k = unit.index
        if unit.group == "first.0":
            parts = [model.first[0].weight[k], model.second[0].weight[:, k]]
        else:  # the stream: written by the stem and the block, read by the block and the head
            written = [model.stem[0].weight[k], model.second[0].weight[k]]
            parts = [*written, model.first[0].weight[:, k], model.head.weight[:, k]]
        assert scores[unit.name] == pytest.approx(np.mean([power(p) for p in parts]), rel=1e-5)


def test_magnitude_counts_all_the_features_that_a_flattened_channel_becomes():
    network = traced("flatten")
    conv, head = network.model.features[0].weight, network.model.head.weight
    for unit in network.units:
        k = unit.index
        expected = (conv[k].square().sum() + head[:, 16 * k : 16 * (k + 1)].square().sum()) / 2
        assert magnitude(network)[unit] == pytest.approx(expected.item(), rel=1e-5)


def test_criteria_carry_no_interval():
    scores = magnitude(traced("residual"), order=1)
    assert np.isnan(scores.standard_error).all()
    assert scores.estimand == "score"
    with pytest.raises(InputError, match="order 3"):
        magnitude(traced("residual"), order=3)


def test_random_scores_depend_on_the_seed_alone():
    network = traced("residual")
    first, again, other = (random_scores(network, seed=seed).mean for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert ((first >= 0) & (first < 1)).all()


@pytest.fixture(scope="module")
def linear():
    """Two convolutions and a linear layer without activations: two logits that are linear in every unit."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)]
        model = nn.Sequential(*layers).eval()
    return trace(model, torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize("outcome", ["margin", ClassLogit(1)])
def test_where_the_network_is_linear_taylor_is_the_mean_absolute_exact_effect(linear, outcome):
    batch = Batch(fresh_batch(linear).args, {}, LABELS)
    exact = exact_effects(linear, [batch], outcome=outcome, per_image=True)
    first_order = taylor(linear, [batch], outcome=outcome)
    np.testing.assert_allclose(first_order.mean, np.abs(exact.per_image).mean(axis=1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["linear", "flatten"])
def test_taylor_is_gradient_times_activation_where_a_layer_reads(name, linear, request):
    """The oracle differentiates the user's own module by what each layer is given."""
    network = linear if name == "linear" else traced(name)
    readers = {"0": "1", "1": "4"} if name == "linear" else {"features.0": "head"}
    images = fresh_batch(network).args[0]
    seen = {}

    def record(reader):
        def hook(module, args):
            seen[reader] = args[0].detach().requires_grad_() if not args[0].requires_grad else args[0]
            seen[reader].retain_grad()
            return seen[reader]

        return hook

    model = network.model
    handles = [model.get_submodule(r).register_forward_pre_hook(record(r)) for r in readers.values()]
    F.cross_entropy(model(images), LABELS, reduction="sum").backward()
    for handle in handles:
        handle.remove()
    model.zero_grad(set_to_none=True)
    found = taylor(network, [(images, LABELS)], outcome="cross-entropy")
    for unit in network.units:
        value = seen[readers[unit.group]]
        product = (value.grad * value).detach()
        features = product.shape[1] // len(network.group(unit.group).units)
        own = product[:, unit.index * features : (unit.index + 1) * features].flatten(1).sum(dim=1)
        assert found[unit] == pytest.approx(float(own.abs().mean()), rel=1e-4, abs=1e-7)


def test_taylor_without_labels_is_zero_where_nothing_follows_and_grows_with_the_logits():
    case = planted.case()
    scores = taylor(case.network, [case.images])
    assert scores[case.unit(planted.DEAD)] == scores[case.unit(planted.BYSTANDER)] == 0
    assert scores[case.unit(planted.PLAIN)] > 0
    model = planted.planted()
    with torch.no_grad():
        model.head.weight.mul_(2)
    doubled = taylor(trace(model, case.images[:3]), [case.images])
    np.testing.assert_allclose(doubled.mean, 2 * scores.mean, rtol=1e-4)
    assert np.array_equal(taylor(case.network, [case.images]).mean, scores.mean)


def test_taylor_needs_images_and_what_its_outcome_needs():
    network = traced("residual")
    with pytest.raises(InputError, match="no data"):
        taylor(network, [])
    with pytest.raises(InputError, match="needs labels"):
        taylor(network, [fresh_batch(network)], outcome="margin")
