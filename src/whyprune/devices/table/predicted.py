"""Rows of a predicted device: computed from its rates, where nothing can be timed."""

from collections.abc import Iterable
from math import prod

from whyprune.devices.roofline import PredictedDevice
from whyprune.devices.table.rows import Row
from whyprune.structure.operation_costs import OperationCost, kind_of_convolution


def predicted_rows(device: PredictedDevice, rows: Iterable[Row]) -> dict[Row, float]:
    """Milliseconds per row."""
    wanted = list(rows)
    return dict(zip(wanted, device.operations_ms([cost_of(row) for row in wanted]), strict=True))


def cost_of(row: Row) -> OperationCost:
    """What a row computes, reads and writes for one sample."""
    inputs = row.inputs // row.groups
    conv = row.operation == "conv"
    return OperationCost(
        name=row.operation,
        kind=kind_of_convolution(inputs, row.groups, row.kernel, row.stride) if conv else "linear",
        macs=row.macs // row.batch,
        reads=row.inputs * prod(row.size),
        writes=row.outputs * prod(row.result),
        weights=row.outputs * inputs * prod(row.kernel),
        channels=(inputs, row.outputs),
    )
