"""Costs of operations say what the operations of the pruned network really compute, read and write."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import CASES, traced
from removal_property import fresh_batch
from torch import nn

from whyprune.structure.capture import as_example, capture
from whyprune.structure.operation_costs import (
    KINDS,
    OperationCost,
    kind_of_convolution,
    operation_cost_model,
    operation_costs,
)
from whyprune.structure.remove import remove


@pytest.mark.parametrize("name", [*CASES, "resnet20", "mobilenet_v2"])
def test_the_macs_of_the_layers_are_those_of_the_network(name):
    network = traced(name)
    layers = operation_cost_model(network)()
    assert sum(layer.macs for layer in layers) == network.cost().macs
    assert {layer.kind for layer in layers} <= set(KINDS)
    assert all(layer.writes > 0 and min(layer.channels) > 0 for layer in layers)


@given(st.data())
@settings(max_examples=8, deadline=None)
def test_layers_without_units_are_the_layers_of_the_pruned_network(data):
    """What the formula says for some counts equals what a fresh capture of the really pruned network shows."""
    name = data.draw(st.sampled_from(["concat", "pad shortcut", "grouped", "flatten"]))
    network = traced(name)
    counts = {g: data.draw(st.integers(0, len(g.units) - 1)) for g in network.groups}
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    units = [u for g, n in counts.items() for u in rng.choice(np.array(g.units, dtype=object), n, replace=False)]
    model = operation_cost_model(network)
    captured = operation_costs(capture(remove(network, units), fresh_batch(network, count=2)))
    assert [_sizes(layer) for layer in model(units)] == [_sizes(layer) for layer in captured]
    assert model.of_groups(counts) == model(units)


def test_layers_by_hand():
    """Batch norm and ReLU belong to the convolution in front of them; a view costs nothing; a pooling is a layer."""
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 5)),
    ).eval()
    found = operation_costs(capture(model, as_example(torch.randn(2, 3, 8, 8))))
    assert [_sizes(layer) for layer in found] == [
        ("winograd", 8 * 3 * 9 * 64, 3 * 64, 8 * 64, 8 * 3 * 9, (3, 8)),
        ("depthwise", 8 * 9 * 16, 8 * 64, 8 * 16, 8 * 9, (1, 8)),
        ("elementwise", 0, 8 * 16, 8 * 4, 0, (1, 1)),
        ("linear", 32 * 5, 32, 5, 32 * 5, (32, 5)),
    ]


@pytest.mark.parametrize(
    ("channels", "groups", "kernel", "stride", "kind"),
    [
        (16, 1, (3, 3), (1, 1), "winograd"),
        (16, 1, (3, 3), (2, 2), "spatial"),
        (16, 1, (1, 3), (1, 1), "spatial"),
        (16, 1, (1, 1), (2, 2), "pointwise"),
        (1, 16, (3, 3), (1, 1), "depthwise"),
        (1, 1, (3, 3), (1, 1), "winograd"),
        (8, 2, (1, 1), (1, 1), "grouped"),
    ],
)
def test_kinds_of_convolutions(channels, groups, kernel, stride, kind):
    assert kind_of_convolution(channels, groups, kernel, stride) == kind


def _sizes(layer: OperationCost):
    return layer.kind, layer.macs, layer.reads, layer.writes, layer.weights, layer.channels
