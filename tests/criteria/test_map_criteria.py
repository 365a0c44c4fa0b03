"""Criteria of feature maps against brute force, and on maps whose values are planted."""

import numpy as np
import pytest
import torch
from torch import nn

from structure.networks import traced
from structure.removal_property import fresh_batch
from whyprune.criteria import activation_variance, chip, hrank
from whyprune.criteria.activation_variance import denoised
from whyprune.criteria.chip import independence
from whyprune.errors import InputError
from whyprune.structure.trace import trace


class Given(nn.Module):
    """Hands its input on channel by channel, so that maps can be planted, and reads it with one layer."""

    def __init__(self, channels):
        super().__init__()
        self.copy = nn.Conv2d(channels, channels, 1, bias=False)
        self.read = nn.Conv2d(channels, 2, 1)
        with torch.no_grad():
            self.copy.weight.copy_(torch.eye(channels)[:, :, None, None])

    def forward(self, x):
        return self.read(self.copy(x)).mean(dim=(2, 3))


def given(maps):
    return trace(Given(maps.shape[1]).eval(), maps[:2])


@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (2, 12, 2, 2), (4, 3, 1, 1)])
def test_chip_is_the_nuclear_norm_lost_when_a_row_is_zeroed(shape):
    maps = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.zeros(shape[:2], dtype=torch.float64)
    for image in range(shape[0]):
        for channel in range(shape[1]):
            rows = maps[image].flatten(1)
            without = rows.clone()
            without[channel] = 0
            expected[image, channel] = torch.linalg.matrix_norm(rows, "nuc") - torch.linalg.matrix_norm(without, "nuc")
    torch.testing.assert_close(independence(maps), expected, rtol=1e-6, atol=1e-6)
    found = chip(given(maps.float()), [maps.float()])
    np.testing.assert_allclose(found.mean, expected.mean(dim=0).numpy(), rtol=1e-4, atol=1e-5)


def test_hrank_is_the_mean_rank_of_planted_maps():
    generator = torch.Generator().manual_seed(1)
    maps = torch.zeros(6, 4, 5, 5)
    for channel, rank in enumerate((0, 1, 3, 5)):
        maps[:, channel] = torch.randn(6, 5, rank, generator=generator) @ torch.randn(6, rank, 5, generator=generator)
    assert hrank(given(maps), [maps[:4], maps[4:]]).mean.tolist() == [0, 1, 3, 5]


def test_the_variance_of_a_unit_is_that_of_its_values_over_images_and_places():
    network = traced("residual")
    images = fresh_batch(network).args[0]
    seen = {}
    handles = [
        module.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0].detach()}))
        for name, module in network.model.named_modules()
        if name in ("second.0",)
    ]
    network.model(images)
    for handle in handles:
        handle.remove()
    scores = activation_variance(network, [images[:2], images[2:]]).by_unit()
    for unit in network.group("first.0").units:
        expected = float(seen["second.0"][:, unit.index].double().var(correction=0))
        assert scores[unit.name] == pytest.approx(expected, rel=1e-4)


def test_denoising_keeps_a_planted_signal_and_drops_the_noise():
    generator = torch.Generator().manual_seed(2)
    images, channels, strength = 400, 100, 30.0
    direction = torch.zeros(channels, dtype=torch.float64)
    direction[:4] = 0.5
    rows = torch.randn(images, channels, generator=generator, dtype=torch.float64)
    rows += strength**0.5 * torch.randn(images, 1, generator=generator, dtype=torch.float64) * direction
    covariance = torch.cov(rows.T, correction=0)
    found = denoised(covariance, images)
    assert int(torch.linalg.matrix_rank(found)) == 1
    assert found.diagonal()[:4].min() > 5
    assert found.diagonal()[4:].max() < 0.5
    assert torch.linalg.matrix_rank(denoised(torch.cov(torch.randn(50, 80, dtype=torch.float64).T), 50)) <= 2


@pytest.mark.parametrize("criterion", [hrank, chip, activation_variance])
def test_a_criterion_of_maps_needs_images(criterion):
    with pytest.raises(InputError, match=r"no data|at least 2"):
        criterion(traced("residual"), [])
