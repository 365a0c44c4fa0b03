"""Criteria of second order against derivatives taken by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from whyprune.criteria import hessian_diagonal, obd_c
from whyprune.structure.trace import trace
from whyprune.testing import planted

LABELS = torch.tensor([0, 1, 1, 0, 2, 2])


@pytest.fixture(scope="module")
def small():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(4, 3),
        ).eval()  # fmt: skip
        return trace(model, torch.zeros(2, 2, 8, 8)), torch.randn(6, 2, 8, 8)


def test_the_hessian_diagonal_is_the_mean_of_squared_gradients_of_single_images(small):
    network, images = small
    model = network.model
    squares = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for k in range(len(images)):
        loss = F.cross_entropy(model(images[k : k + 1]), LABELS[k : k + 1])
        for (name, _), found in zip(
            model.named_parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
        ):
            squares[name] += found.square() / len(images)
    damage = {name: 0.5 * squares[name] * p.detach().square() for name, p in model.named_parameters()}
    scores = hessian_diagonal(network, [(images[:4], LABELS[:4]), (images[4:], LABELS[4:])], outcome="cross-entropy")
    for unit in network.group("0").units:
        parts = [damage["0.weight"][unit.index].sum(), damage["2.weight"][:, unit.index].sum()]
        assert scores[unit] == pytest.approx(float(torch.stack(parts).mean()), rel=1e-4)


def test_obd_c_is_the_quadratic_form_of_the_kronecker_factors(small):
    """theta_c' (S_cc A) theta_c / 2, with both factors formed by hand from unfolded inputs and hooked gradients."""
    network, images = small
    model = network.model
    seen = {}

    def keep(module, args, output):
        output.retain_grad()
        seen["input"], seen["output"] = args[0].detach(), output

    handle = model[2].register_forward_hook(keep)
    F.cross_entropy(model(images), LABELS, reduction="sum").backward()
    handle.remove()
    model.zero_grad(set_to_none=True)
    patches = F.unfold(seen["input"], 3)  # (N, D, T)
    covariance = torch.einsum("ndt,net->de", patches, patches) / len(images)
    slopes = seen["output"].grad.flatten(2).square().mean(dim=2).mean(dim=0)
    theta = model[2].weight.detach().flatten(1)
    expected = 0.5 * slopes * torch.einsum("cd,de,ce->c", theta, covariance, theta)
    found = obd_c(network, [(images[:4], LABELS[:4]), (images[4:], LABELS[4:])], outcome="cross-entropy")
    np.testing.assert_allclose([found[u] for u in network.group("2").units], expected.numpy(), rtol=1e-4)


@pytest.mark.parametrize("criterion", [hessian_diagonal, obd_c])
def test_without_labels_a_dead_unit_has_no_curvature_and_twice_the_logits_four_times_as_much(
    criterion,
):
    case = planted.case()
    scores = criterion(case.network, [case.images[:32]])
    assert scores[case.unit(planted.DEAD)] == pytest.approx(0, abs=1e-9)
    assert scores[case.unit(planted.PLAIN)] > 0
    model = planted.planted()
    with torch.no_grad():
        model.head.weight.mul_(2)
        model.head.bias.mul_(2)
    again = criterion(trace(model, case.images[:2]), [case.images[:32]])
    own = [k for k, group in enumerate(scores.groups) if group == "units"]
    np.testing.assert_allclose(again.mean[own], 4 * scores.mean[own], rtol=1e-3, atol=1e-9)
