"""Rows of a predicted device are the layers that they stand for, at the device's rates."""

import pytest
import torch
from torch import nn

from whyprune.devices.profile import profiles
from whyprune.devices.registry import device
from whyprune.devices.roofline import PredictedDevice, operation_times_ms
from whyprune.devices.table.predicted import cost_of, predicted_rows
from whyprune.devices.table.rows import Row
from whyprune.devices.table.timing import timed
from whyprune.structure.capture import as_example, capture
from whyprune.structure.operation_costs import operation_costs

ROWS = [
    Row("conv", 12, 20, (3, 3), (1, 1), (1, 1), size=(9, 9)),
    Row("conv", 12, 20, (3, 3), (2, 2), (1, 1), size=(9, 8)),
    Row("conv", 12, 12, (5, 5), (1, 1), (2, 2), groups=12, size=(7, 7), batch=3),
    Row("conv", 12, 24, (3, 3), (1, 1), (0, 0), groups=4, size=(7, 7)),
    Row("conv", 12, 24, (1, 1), (2, 2), size=(8, 8)),
    Row("linear", 30, 10, size=(1, 1)),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_row_is_the_layer_that_it_stands_for(row):
    """As a capture of that layer shows it."""
    if row.operation == "conv":
        layer = nn.Conv2d(row.inputs, row.outputs, row.kernel, row.stride, row.padding, row.dilation, row.groups)
        example = as_example(torch.randn(2, row.inputs, *row.size))
    else:
        layer, example = nn.Linear(row.inputs, row.outputs), as_example(torch.randn(2, row.inputs))
    (captured,) = operation_costs(capture(layer.eval(), example))
    found = cost_of(row)
    for attribute in ("kind", "macs", "reads", "writes", "weights", "channels"):
        assert getattr(found, attribute) == getattr(captured, attribute), attribute


def test_a_table_of_a_predicted_device_runs_nothing():
    predicted = device("pi4-1t-b3")
    assert isinstance(predicted, PredictedDevice)
    (part,) = timed(predicted, ROWS)
    assert part == predicted_rows(predicted, ROWS)
    rates = profiles()["pi4"].roofline(1).rates
    assert list(part.values()) == pytest.approx(operation_times_ms([cost_of(r) for r in ROWS], rates, 3))
