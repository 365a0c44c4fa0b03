"""Times rows on a device: networks of one and of several copies, the difference over the number of copies."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from whyprune.data.batches import Batch
from whyprune.devices.base import Device, Measurement
from whyprune.devices.table.graphs import Copies, input_shape, write_onnx
from whyprune.devices.table.rows import Row

AT_ONCE = 24
"""Rows per call of the device: what was measured before an interruption is kept."""
REPEATS = 60
SECONDS = 6.0
QUANTILE = 0.2
"""Of the times of one network: other work on the machine only ever adds to them."""
SHORTEST_MS = 1e-5
HEAVY_MACS = 20_000_000


@runtime_checkable
class RunsOnnx(Protocol):
    """A device that runs ONNX files as they are, so that small networks need no export."""

    def run_onnx(
        self, paths: Mapping[str, Path], inputs: Sequence[NDArray[Any]], *, repeats: int, seconds: float
    ) -> Measurement:
        """Times files by name on the same inputs, interleaved."""
        ...


def copies_of(row: Row) -> tuple[int, int]:
    """How many copies the short and the long network of a row have."""
    return 1, 3 if row.macs > HEAVY_MACS else 5


def timed(device: Device, rows: Sequence[Row]) -> Iterator[dict[Row, float]]:
    """Milliseconds per row, part by part.

    Args:
        device: runs the small networks at its own number of threads.
        rows: each once.
    """
    by_input: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        by_input.setdefault(input_shape(row), []).append(row)
    for shape, alike in by_input.items():
        for start in range(0, len(alike), AT_ONCE):
            yield _timed_part(device, alike[start : start + AT_ONCE], shape)


def _timed_part(device: Device, rows: Sequence[Row], shape: tuple[int, ...]) -> dict[Row, float]:
    names = {f"r{i}-{copies}": (row, copies) for i, row in enumerate(rows) for copies in copies_of(row)}
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    if isinstance(device, RunsOnnx):
        with tempfile.TemporaryDirectory(prefix="whyprune-table-") as folder:
            paths = {name: Path(folder, f"{name}.onnx") for name in names}
            for name, (row, copies) in names.items():
                write_onnx(row, copies, paths[name])
            measured = device.run_onnx(paths, [x.numpy()], repeats=REPEATS, seconds=SECONDS)
    else:
        networks: dict[str, nn.Module] = {name: Copies(row, copies).eval() for name, (row, copies) in names.items()}
        measured = device(networks, Batch((x,), {}))
    quick = {name: float(np.quantile(times, QUANTILE)) for name, times in measured.samples_ms.items()}
    found = {}
    for i, row in enumerate(rows):
        few, many = copies_of(row)
        found[row] = max((quick[f"r{i}-{many}"] - quick[f"r{i}-{few}"]) / (many - few), SHORTEST_MS)
    return found
