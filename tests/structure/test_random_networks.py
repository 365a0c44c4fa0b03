"""Random networks, random removals: the property holds for whatever blocks follow each other."""

import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import CLASSES, randomised
from removal_property import assert_removal_is_right, removals
from torch import nn

from whyprune.models import PadShortcut
from whyprune.structure.trace import trace

SIDE = 4
ACTIVATIONS = (nn.ReLU, nn.Sigmoid, nn.SiLU, nn.Tanh, lambda: nn.ReLU(inplace=True), nn.Hardswish)
widths = st.integers(2, 5)


class Conv(nn.Sequential):
    def __init__(self, inputs, outputs, **options):
        super().__init__(nn.Conv2d(inputs, outputs, 3, padding=1, **options))


class Plus(nn.Module):
    """Adds, concatenates or multiplies what the branch gives."""

    def __init__(self, branch, how, shortcut=None):
        super().__init__()
        self.branch, self.how, self.shortcut = branch, how, shortcut

    def forward(self, x):
        left, right = x if self.shortcut is None else self.shortcut(x), self.branch(x)
        if self.how == "cat":
            return torch.cat([left, right], dim=1)
        return left + right if self.how == "add" else left * torch.sigmoid(right)


class Every(nn.Module):
    def forward(self, x):
        return x[:, :, ::2]


class Tail(nn.Module):
    """Flattens or averages, then two linear layers."""

    def __init__(self, channels, places, flat, hidden):
        super().__init__()
        self.flat = flat
        self.hidden = nn.Linear(channels * (places if flat else 1), hidden)
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, x):
        x = x.flatten(1) if self.flat else x.mean((2, 3))
        return self.head(F.relu(self.hidden(x)))


@st.composite
def block(draw, channels):
    """A block, and how many channels it gives."""
    inner, outputs = draw(widths), draw(widths)
    bias = draw(st.booleans())
    kinds = {
        "conv": lambda: (Conv(channels, outputs, bias=bias), outputs),
        "norm": lambda: (nn.BatchNorm2d(channels, affine=bias), channels),
        "activation": lambda: (draw(st.sampled_from(ACTIVATIONS))(), channels),
        "depthwise": lambda: (Conv(channels, channels, groups=channels, bias=bias), channels),
        "grouped": lambda: (Conv(channels, 2 * outputs, groups=2), 2 * outputs),
        "residual": lambda: (Plus(body(channels, inner, channels), "add"), channels),
        "projection": lambda: (
            Plus(body(channels, inner, outputs), "add", nn.Conv2d(channels, outputs, 1)),
            outputs,
        ),
        "padded": lambda: (
            Plus(body(channels, inner, channels + 3), "add", PadShortcut(1, 1, 2)),
            channels + 3,
        ),
        "concat": lambda: (Plus(Conv(channels, inner), "cat"), channels + inner),
        "gate": lambda: (
            Plus(nn.Sequential(nn.AdaptiveAvgPool2d(1), body(channels, inner, channels, 1)), "gate"),
            channels,
        ),
        "places": lambda: (draw(st.sampled_from((nn.MaxPool2d(3, 1, 1), nn.Upsample(scale_factor=2)))), channels),
    }
    if channels % 2:
        del kinds["grouped"]
    return kinds[draw(st.sampled_from(sorted(kinds)))]()


def body(channels, inner, outputs, kernel=3):
    options = {"padding": kernel // 2, "bias": False}
    return nn.Sequential(
        nn.Conv2d(channels, inner, kernel, **options),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
        nn.Conv2d(inner, outputs, kernel, **options),
    )


@st.composite
def networks(draw):
    channels = draw(widths)
    layers = [Conv(3, channels)]
    for _ in range(draw(st.integers(1, 5))):
        layer, channels = draw(block(channels))
        layers.append(layer)
        if channels > 10:
            break
    layers += [Every()] if draw(st.booleans()) else []
    layers.append(nn.AdaptiveMaxPool2d(2))
    return nn.Sequential(*layers, Tail(channels, 4, draw(st.booleans()), draw(widths)))


@given(networks(), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_random_networks_are_right_after_random_removals(model, seed):
    network = trace(
        randomised(model, seed), torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    )
    assert network.groups  # the hidden linear layer, at least
    for units in removals(network, singles=1, seed=seed)[:3]:
        assert_removal_is_right(network, units)
