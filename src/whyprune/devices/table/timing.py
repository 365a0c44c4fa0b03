"""Times rows on a device: networks of one and of several copies, the difference over the number of copies."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import cast

import numpy as np
import torch

from whyprune.data.batches import Batch
from whyprune.devices.base import Device, Measurement, Model
from whyprune.devices.local import LocalDevice
from whyprune.devices.roofline import PredictedDevice
from whyprune.devices.ssh import RemoteDevice
from whyprune.devices.table.graphs import Copies, input_shape, write_onnx
from whyprune.devices.table.predicted import predicted_rows
from whyprune.devices.table.rows import Row

AT_ONCE = 24
"""Rows per call of the device: what was measured before an interruption is kept."""
REPEATS = 60
QUANTILE = 0.1
"""Of the times of one network: other work on the machine only ever adds to them."""
SHORTEST_MS = 1e-5
HEAVY_MACS = 20_000_000
Writer = Callable[[Row, int, Path], Path]


def copies_of(row: Row) -> tuple[int, int]:
    """How many copies the short and the long network of a row have."""
    return 1, 3 if row.macs > HEAVY_MACS else 5


def timed(device: Device, rows: Sequence[Row]) -> Iterator[dict[Row, float]]:
    """Milliseconds per row, part by part.

    Args:
        device: runs the small networks at its own number of threads.
        rows: each once.
    """
    if isinstance(device, PredictedDevice):
        yield predicted_rows(device, rows)
        return
    by_input: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        by_input.setdefault(input_shape(row), []).append(row)
    for shape, alike in by_input.items():
        for start in range(0, len(alike), AT_ONCE):
            yield _timed_part(device, alike[start : start + AT_ONCE], shape)


def _timed_part(device: Device, rows: Sequence[Row], shape: tuple[int, ...]) -> dict[Row, float]:
    names = {f"r{i}-{copies}": (row, copies) for i, row in enumerate(rows) for copies in copies_of(row)}
    inputs = Batch((torch.randn(shape, generator=torch.Generator().manual_seed(0)),), {})
    write = writer_for(device)
    if write is None:
        modules = {name: Copies(row, copies).eval() for name, (row, copies) in names.items()}
        measured = briefly(device, REPEATS)(modules, inputs)
    else:
        with tempfile.TemporaryDirectory(prefix="whyprune-table-") as folder:
            files = {name: write(row, copies, Path(folder, name)) for name, (row, copies) in names.items()}
            measured = briefly(device, REPEATS)(cast(Mapping[str, Model], files), inputs)
    quick = {name: fastest_ms(measured, name) for name in names}
    found = {}
    for i, row in enumerate(rows):
        few, many = copies_of(row)
        found[row] = max((quick[f"r{i}-{many}"] - quick[f"r{i}-{few}"]) / (many - few), SHORTEST_MS)
    return found


def fastest_ms(measured: Measurement, name: str) -> float:
    """A low quantile of a network's undisturbed times; where a device gives no samples, its median."""
    if not len(measured.samples_ms.get(name, ())):
        return measured.latency[name].p50_ms
    (calm,) = measured.calm_ms(name)
    return float(np.quantile(calm, QUANTILE))


def briefly(device: Device, repeats: int | None = None) -> Device:
    """The same device, measuring latency and energy alone, at most so many times."""
    if isinstance(device, RemoteDevice):
        fewer = min(device.request.repeats, repeats or device.request.repeats)
        return replace(device, request=replace(device.request, repeats=fewer, each_alone=False))
    if not isinstance(device, LocalDevice):
        return device
    return replace(device, repeats=min(device.repeats, repeats or device.repeats), each_alone=False)


def writer_for(device: Device) -> Writer | None:
    """Writes rows as files that a device runs as they are; None where it takes modules."""
    takes_files = isinstance(device, LocalDevice) or bool(getattr(device, "takes_files", False))
    return WRITERS.get(getattr(device, "runtime", "")) if takes_files else None


def _onnx(row: Row, copies: int, stem: Path) -> Path:
    path = stem.with_suffix(".onnx")
    write_onnx(row, copies, path)
    return path


def _openvino(row: Row, copies: int, stem: Path) -> Path:
    openvino = import_module("openvino")
    source, path = _onnx(row, copies, stem), stem.with_suffix(".xml")
    openvino.save_model(openvino.Core().read_model(source), path, compress_to_fp16=False)
    return path


WRITERS: dict[str, Writer] = {"ort": _onnx, "ort-cuda": _onnx, "ort-tensorrt": _onnx, "openvino": _openvino}
"""Runtime -> writes a row as a file of its format, without an export."""
