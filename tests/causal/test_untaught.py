"""A network that adds to its input is held against its code alone: with all that it learned gone, it is lost."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import whyprune as wp
from structure.networks import randomised
from whyprune.effects.joint import joint_effect
from whyprune.structure.state import State


class Adding(nn.Module):
    """Details that are added to what the code makes of the input alone."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3 * scale**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        details = F.pixel_shuffle(self.two(torch.relu(self.one(x))), self.scale)
        return F.interpolate(x, scale_factor=self.scale) - 0.05 * details


@pytest.mark.parametrize("scale", [1, 2])
def test_a_network_whose_details_are_gone_is_lost(scale):
    x = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    network = wp.trace(randomised(Adding(scale)), x[:2])
    gone = deepcopy(network.model)
    with torch.no_grad():
        gone.two.weight.zero_()
        gone.two.bias.zero_()
        dense = network.model(x)
        spread = dense.var(0, correction=0).mean()
        by_hand = float((F.interpolate(x, scale_factor=scale) - dense).square().mean() / spread)
    lost = joint_effect(State(network, gone, ()), [x])
    assert lost.untaught == pytest.approx(by_hand, rel=1e-4)
    assert lost.mean == pytest.approx(by_hand, rel=1e-4)
    assert lost.mean < 0.1 * lost.constant
    assert lost.level == "lost"
    assert "with all its parameters at zero" in lost.sentence
    kept = joint_effect(State(network, network.model, ()), [x])
    assert kept.level == "hardly changed"


def test_a_network_that_adds_nothing_to_its_input_has_no_such_answer():
    x = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
    network = wp.trace(randomised(plain), x[:2])
    assert joint_effect(State(network, network.model, ()), [x]).untaught is None
