"""A local device: its contract on every runtime there is here, planted wrong files, and its cache."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_spec import onnx_file
from torch import nn

from whyprune.data.batches import Batch
from whyprune.devices import LocalDevice
from whyprune.devices.artifacts import FORMATS
from whyprune.devices.artifacts.cache import ArtifactCache
from whyprune.devices.runtimes import RUNTIMES
from whyprune.errors import (
    FormatError,
    InputError,
    MissingDependencyError,
    TraceError,
    VerificationError,
)
from whyprune.testing import check_device

pytest.importorskip("onnxruntime")
QUICK = {"repeats": 3, "seconds": 0.5, "warmup": 1, "each_alone": False}


class Scaled(nn.Module):
    """Of the same weights and settings as any other: the factor is in the code alone."""

    def __init__(self, factor):
        super().__init__()
        self.line = nn.Linear(3, 2)
        nn.init.constant_(self.line.weight, 0.5)
        nn.init.zeros_(self.line.bias)
        self._factor = (lambda: factor,)

    def forward(self, x, shift=None):
        y = self.line(x) * self._factor[0]()
        return {"y": y if shift is None else y + shift, "x": x}


def batch(n=2):
    return Batch((torch.arange(3.0 * n).reshape(n, 3),), {})


def files_in(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*"))


def missing(runtime):
    """Why a runtime cannot be tested here: it does not run, or its files cannot be written."""
    from importlib.util import find_spec

    form = FORMATS[RUNTIMES[runtime].format]
    without = [module for module in form.modules if find_spec(module) is None]
    return RUNTIMES[runtime].missing() or (f"{without} to write its files" if without else None)


@pytest.mark.parametrize("runtime", ["ort", "torch", "openvino", "executorch", "litert", "ncnn", "compile"])
def test_every_runtime_that_is_here_keeps_the_contract(runtime):
    if reason := missing(runtime):
        pytest.skip(reason)
    if runtime == "compile" and "WHYPRUNE_SLOW" not in os.environ:
        pytest.skip("a compilation takes minutes on a busy machine: set WHYPRUNE_SLOW to run it")
    light = runtime in ("ort", "openvino", "ncnn", "litert")  # the others bring PyTorch into each process
    found = check_device(LocalDevice(runtime, seconds=0.5, repeats=5, each_alone=light), images=1)
    assert found.runtime == runtime
    assert set(found.size_bytes) == set(found.max_abs_difference) == {"dense", "pruned"}
    assert set(found.cold_start_ms) == set(found.peak_memory_bytes) == ({"dense", "pruned"} if light else set())
    assert found.size_bytes["pruned"] < found.size_bytes["dense"]
    assert all(0 < m < 2**33 for m in found.peak_memory_bytes.values())
    assert found.versions


@pytest.mark.parametrize("runtime", ["ort-cuda", "ort-tensorrt", "cuda"])
def test_a_runtime_for_gpus_says_what_is_missing(runtime):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(MissingDependencyError, match=f"local-{runtime}-1t.*install"):
        LocalDevice(runtime)({"m": nn.Linear(3, 2)}, batch())


@pytest.mark.parametrize("runtime", [r for r in RUNTIMES if r not in ("ort-cuda", "ort-tensorrt", "cuda", "compile")])
def test_a_runtime_that_is_not_installed_names_the_way(runtime, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install" in RUNTIMES[runtime].missing()


def test_keyword_inputs_constants_and_nested_outputs_reach_the_runtime():
    inputs = Batch((batch(4).args[0],), {"shift": torch.ones(4, 1)})
    found = LocalDevice(batch_size=4, **QUICK)({"net": Scaled(3.0)}, inputs)
    assert found.max_abs_difference["net"] < 1e-6
    assert found.device == "local-ort-1t-b4"
    latency = found.latency["net"]
    assert latency.throughput_per_s == pytest.approx(4000 / np.median(found.samples_ms["net"]))
    assert latency.min_ms <= latency.p50_ms <= latency.p90_ms


def test_the_machine_says_what_the_processes_were_held_to():
    core = max(os.sched_getaffinity(0))
    device = LocalDevice(cores=(core,), environment={"ONEDNN_MAX_CPU_ISA": "AVX2"}, **QUICK)
    machine = device({"net": nn.Linear(3, 2)}, batch()).machine
    assert machine["affinity"] == [core]
    assert machine["environment"]["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert machine["environment"]["OMP_NUM_THREADS"] == "1"


def test_nothing_is_left_behind_and_modes_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model, cache = nn.Sequential(nn.Linear(3, 2), nn.Dropout()), ArtifactCache()
    LocalDevice(cache=cache, **QUICK)({"net": model}, batch(1))
    assert all(m.training for m in model.modules())
    assert len([f for f in files_in(tmp_path) if f.endswith(".onnx")]) == 1
    del cache
    assert files_in(tmp_path) == []


# --- the cache


class Counting(ArtifactCache):
    def __init__(self, limit_bytes=2**30):
        super().__init__(limit_bytes)
        self.found = []

    def get(self, *args):
        artifact, was_there = super().get(*args)
        self.found.append(was_there)
        return artifact, was_there


def test_one_network_is_written_once_and_another_anew():
    cache, x = Counting(), batch(1)
    torch.manual_seed(0)
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    for network, was_there in ((model, False), (model, True), (other, False), (model, True)):
        path = cache.get("onnx", network, x)[0].path
        assert cache.found[-1] == was_there
        assert path.is_file()
    model.weight.data[0, 0] += 1
    assert not cache.get("onnx", model, x)[1]
    assert not cache.get("onnx", model, batch(2))[1]


def test_the_oldest_files_make_room():
    cache, x = Counting(limit_bytes=1), batch(1)
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    old = cache.get("onnx", first, x)[0]
    new = cache.get("onnx", second, x)[0]
    assert (old.path.exists(), new.path.exists()) == (False, True)
    assert not cache.get("onnx", first, x)[1]


def test_a_network_that_differs_in_its_code_alone_is_told_apart_by_its_outputs():
    device = LocalDevice(cache=Counting(), **QUICK)
    for factor in (2.0, 5.0):
        assert device({"net": Scaled(factor)}, batch(1)).max_abs_difference["net"] < 1e-6
    assert device.cache.found == [False, True, False]


# --- what goes wrong


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"runtime": "abacus"}, "'abacus'"),
        ({"threads": 0}, "threads is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"repeats": 0}, "repeats is 0"),
        ({"runtime": "openvino", "calibration": [batch()]}, "openvino"),
    ],
)
def test_refuses_settings_out_of_range(settings, says):
    with pytest.raises(InputError, match=says):
        LocalDevice(**settings)


@pytest.mark.parametrize(
    ("networks", "says"),
    [
        ({}, "no network"),
        ({"net": lambda x: x}, "'net' is a function"),
        ({"../net": nn.Linear(3, 2)}, "'../net'"),
        ({"net": nn.Linear(4, 2)}, r"'net' failed on inputs \(1, 3\)"),
        ({"net": Path("gone.onnx")}, "gone.onnx"),
    ],
)
def test_refuses_networks_that_cannot_be_measured(networks, says):
    with pytest.raises((InputError, FormatError), match=says):
        LocalDevice(**QUICK)(networks, batch())


def test_refuses_too_few_inputs_and_batches_where_a_runtime_has_none(monkeypatch):
    with pytest.raises(InputError, match="2 inputs for a batch of 5"):
        LocalDevice(batch_size=5)({"net": nn.Linear(3, 2)}, batch())
    monkeypatch.setattr(RUNTIMES["ncnn"], "missing", lambda: None)
    with pytest.raises(InputError, match="batch_size is 2, but ncnn"):
        LocalDevice("ncnn", batch_size=2)({"net": nn.Linear(3, 2)}, batch())


def test_a_file_that_computes_something_else_is_refused(monkeypatch):
    wrong = nn.Linear(3, 2)

    class Swapping(ArtifactCache):
        def get(self, form, model, example):
            return super().get(form, wrong, example)

    with pytest.raises(VerificationError, match=r"'net' in ONNX Runtime differs from PyTorch"):
        LocalDevice(cache=Swapping(), **QUICK)({"net": nn.Linear(3, 2)}, batch(1))


def test_nan_memory_and_time_are_refused_in_one_line(tmp_path):
    bad = onnx_file(tmp_path / "bad.onnx", 0.0, divide=True)
    with pytest.raises(VerificationError, match=r"local-ort-1t: network 'net' gives NaN"):
        LocalDevice(**QUICK)({"net": bad}, Batch((torch.zeros(1, 3),), {}))
    with pytest.raises(VerificationError, match=r"no answer in 0\.01 s"):
        LocalDevice(timeout_s=0.01, **QUICK)({"net": nn.Linear(3, 2)}, batch())
    large = onnx_file(tmp_path / "large.onnx", copies=10**7)
    with pytest.raises(InputError, match="memory_bytes"):
        LocalDevice(memory_bytes=100 * 2**20, **QUICK)({"net": large}, Batch((torch.zeros(1, 3),), {}))


def test_a_ready_file_is_measured_as_it_is(tmp_path):
    ready = onnx_file(tmp_path / "ready.onnx")
    found = LocalDevice(**QUICK)({"net": ready}, batch(1))
    assert found.max_abs_difference == {}
    assert found.size_bytes == {"net": ready.stat().st_size}


def test_what_cannot_be_exported_is_one_error():
    class Branching(nn.Module):
        def forward(self, x):
            return torch.linalg.svdvals(x)

    with pytest.raises(TraceError, match="cannot be written as"):
        LocalDevice(**QUICK)({"net": Branching()}, batch())
