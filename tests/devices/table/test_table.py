"""Rows are measured once: kept on disk, found again, and never believed when the file is not whole."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from devices.in_process import InProcessOrt, session
from devices.made_up_device import MadeUp
from whyprune.data.batches import Batch
from whyprune.devices.local import LocalDevice
from whyprune.devices.table import LatencyTable, Row
from whyprune.devices.table.cache import about_of, cache_path, load_rows, save_rows
from whyprune.devices.table.graphs import Copies, input_shape, write_onnx
from whyprune.devices.table.timing import REPEATS

ROWS = [
    Row("conv", 8, 4, (3, 3), (1, 1), (1, 1), size=(6, 6)),
    Row("conv", 8, 8, (3, 3), (2, 2), (1, 1), groups=8, size=(6, 6)),
    Row("conv", 4, 12, size=(5, 3), batch=2),
    Row("linear", 6, 10),
    Row("linear", 6, 10, size=(7, 1), batch=2),
]
ABOUT = {"device": "made-up", "machine": {"cpu": "x"}}


def test_the_difference_of_two_lengths_is_one_row():
    device = MadeUp(call_ms=5.0)
    table = LatencyTable(device)
    assert table.fill(ROWS) == len(ROWS)
    for row in ROWS:
        places = row.kernel[0] * row.kernel[1]
        assert table[row] == pytest.approx(device.layer_ms(row.outputs, row.inputs // row.groups, places))


@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.parametrize("copies", [1, 3])
def test_a_written_file_computes_what_the_module_computes(tmp_path, row, copies):
    write_onnx(row, copies, tmp_path / "row.onnx")
    weights = {
        i.name: torch.from_numpy(numpy_helper.to_array(i).copy())
        for i in onnx.load(tmp_path / "row.onnx").graph.initializer
    }
    module = Copies(row, copies)
    with torch.no_grad():
        for name, layer in [("stem", module.stem), *((f"copy{i}", part) for i, part in enumerate(module.parts))]:
            weight = weights[f"{name}.weight"]
            layer.weight.copy_(weight if row.operation == "conv" else weight.T)
            layer.bias.copy_(weights[f"{name}.bias"])
    x = torch.randn(input_shape(row))
    found = session(tmp_path / "row.onnx").run(None, {"input": x.numpy()})[0]
    assert np.abs(found - module(x).detach().numpy()).max() < 1e-4


def test_files_are_run_as_they_are():
    device = InProcessOrt(repeats=3)
    table = LatencyTable(device)
    table.fill(ROWS[:2])
    assert device.calls == 1
    assert all(0 < table[row] < 1e3 for row in ROWS[:2])


def test_rows_ask_for_no_process_of_their_own():
    """Rows are compared by their times alone: no device is asked for the memory and the cold start of each."""
    asked = []

    class Watched(LocalDevice):
        def __call__(self, networks, inputs):
            asked.append((self.each_alone, self.repeats))
            return MadeUp()({name: nn.Linear(2, 2) for name in networks}, inputs)

    for runtime in ("torch", "ort"):
        LatencyTable(Watched(runtime)).fill(ROWS[:2])
    assert asked == [(False, REPEATS)] * 2


def test_a_table_is_found_again_by_device_and_machine(tmp_path):
    device = MadeUp()
    measured = device({"dense": torch.nn.Linear(2, 2)}, Batch((torch.zeros(1, 2),), {}))
    first = LatencyTable.of(device, measured, tmp_path)
    first.fill(ROWS)
    again = LatencyTable.of(MadeUp(), measured, tmp_path)
    assert again.rows == first.rows
    assert again.fill(ROWS) == 0
    assert (
        LatencyTable.of(MadeUp(name="other"), MadeUp(name="other")({}, Batch((torch.zeros(1),), {})), tmp_path).rows
        == {}
    )


def test_what_was_measured_before_an_interruption_is_kept(tmp_path):
    class Interrupted(MadeUp):
        def __call__(self, networks, inputs):
            if len(self.networks) > 4:
                raise KeyboardInterrupt
            return super().__call__(networks, inputs)

    path = tmp_path / "deep" / "table.json"
    table = LatencyTable(Interrupted(), ABOUT, path)
    with pytest.raises(KeyboardInterrupt):
        table.fill(ROWS)
    kept, problem = load_rows(path)
    assert problem is None
    assert kept
    assert kept == table.rows
    assert len(kept) < len(ROWS)
    missing = len(ROWS) - len(kept)
    assert LatencyTable(MadeUp(), ABOUT, path, kept).fill(ROWS) == missing


def test_rows_come_back_as_they_were(tmp_path):
    rows = {row: 0.1 * (i + 1) for i, row in enumerate(ROWS)}
    save_rows(tmp_path / "t.json", ABOUT, rows)
    assert load_rows(tmp_path / "t.json") == (rows, None)
    assert load_rows(tmp_path / "none.json") == ({}, None)


def damages():
    def field(name, value):
        return lambda table: table["rows"][0].update({name: value})

    return {
        "changed time": field("ms", 0.7),
        "negative time": field("ms", -1.0),
        "no time": field("ms", None),
        "time as text": field("ms", "1.0"),
        "infinite time": field("ms", float("inf")),
        "unknown operation": field("operation", "__import__"),
        "unknown field": field("code", "x"),
        "a huge count": field("inputs", 10**30),
        "no channels": field("outputs", 0),
        "another version": lambda table: table.update(schema_version=2),
        "another checksum": lambda table: table.update(sha256="0" * 64),
        "a row less": lambda table: table["rows"].pop(),
    }


@pytest.mark.parametrize("name", damages())
def test_a_damaged_table_is_measured_again_and_says_so(tmp_path, name):
    path = tmp_path / "t.json"
    save_rows(path, ABOUT, dict.fromkeys(ROWS, 0.5))
    table = json.loads(path.read_text())
    damages()[name](table)
    path.write_text(json.dumps(table))
    rows, problem = load_rows(path)
    assert rows == {}
    assert "t.json was ignored" in problem


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"rows": 1}'])
def test_a_file_that_is_no_table_is_ignored(tmp_path, content):
    (tmp_path / "t.json").write_bytes(content)
    rows, problem = load_rows(tmp_path / "t.json")
    assert rows == {}
    assert "ignored" in problem


def test_a_cache_that_cannot_be_written_is_a_note(tmp_path):
    (tmp_path / "file").write_text("")
    table = LatencyTable(MadeUp(), ABOUT, tmp_path / "file" / "table.json")
    assert table.fill(ROWS) == len(ROWS)
    assert "not kept" in table.notes[0]


def test_the_cache_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_path(ABOUT).parent == tmp_path / "whyprune" / "tables"
    assert cache_path(ABOUT) != cache_path({**ABOUT, "machine": {"cpu": "y"}})
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    odd = cache_path({**ABOUT, "device": "ssh://me@host:22/../x"})
    assert odd.parent == Path.home() / ".cache" / "whyprune" / "tables"


def test_a_table_is_of_what_chooses_kernels_not_of_one_run():
    def about(**environment):
        measured = MadeUp()({"dense": torch.nn.Linear(2, 2)}, Batch((torch.zeros(1, 2),), {}))
        return about_of(replace(measured, machine={"cpu": "x", "load_average": [1], "environment": environment}))

    assert about(TORCHINDUCTOR_CACHE_DIR="/a") == about(TORCHINDUCTOR_CACHE_DIR="/b")
    assert about(ONEDNN_MAX_CPU_ISA="AVX2") != about()
