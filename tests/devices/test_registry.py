"""Devices by name: emulated limits really hold in the process that runs the network, and what is emulated says so."""

import os

import pytest
import torch
from torch import nn

from whyprune.data.batches import Batch
from whyprune.devices import device
from whyprune.devices.local import LocalDevice
from whyprune.devices.profile import Profile, ResourceLimits, write_profile
from whyprune.devices.ssh import RemoteDevice
from whyprune.errors import InputError, WhypruneError

INPUTS = Batch((torch.randn(2, 3, 8, 8),), {})


def board(folder, **limits):
    write_profile(
        Profile(name="board", kind="emulated", title="A board", limits=ResourceLimits(**limits)), folder / "board.json"
    )
    return device("board-ort", folder=folder)


def test_an_emulated_device_runs_within_its_limits(tmp_path):
    """What the measuring process itself reports: one core, one thread, the name and the kind."""
    pytest.importorskip("onnxruntime")
    found = board(tmp_path, threads=1, cores=1, memory_bytes=2**30)({"net": nn.Conv2d(3, 4, 3)}, INPUTS)
    assert found.kind == "emulated"
    assert found.device == "board-ort-1t"
    assert len(found.machine["affinity"]) == 1
    assert found.latency["net"].threads == 1
    assert 0 < found.peak_memory_bytes["net"] <= 2**30


def test_an_emulated_device_has_no_more_memory_than_its_limit(tmp_path):
    """A network that needs 400 MB for its values does not run where 200 MB are allowed, and does where they are not."""
    pytest.importorskip("onnxruntime")
    hungry = nn.Sequential(nn.Conv2d(3, 1600, 1), nn.Conv2d(1600, 1, 1))
    inputs = Batch((torch.randn(2, 3, 256, 256),), {})
    with pytest.raises(WhypruneError, match="memory"):
        board(tmp_path, threads=1, memory_bytes=200 * 2**20)({"net": hungry}, inputs)
    assert board(tmp_path, threads=1, memory_bytes=2**31)({"net": hungry}, inputs).peak_memory_bytes["net"] > 400e6


@pytest.mark.parametrize(("runtime", "held"), [("openvino", True), ("torch", True), ("ort", False), ("ncnn", False)])
def test_an_instruction_set_is_asked_of_runtimes_that_keep_to_it(runtime, held):
    found = device(f"edge-{runtime}")
    assert isinstance(found, LocalDevice)
    assert ("ONEDNN_MAX_CPU_ISA" in found.environment) == held


def test_names_become_devices():
    local = device("local-openvino-2t-b16")
    assert isinstance(local, LocalDevice)
    assert (local.runtime, local.threads, local.batch_size, local.kind) == ("openvino", 2, 16, "measured")
    assert (local.name, local.cores, local.memory_bytes) == ("local-openvino-2t-b16", None, None)
    assert device("local").name == "local-ort-1t"
    assert device("pi4").kind == "predicted"
    assert isinstance(device("ssh://user@board:2222"), RemoteDevice)
    with pytest.raises(InputError):
        device("ssh://")


def test_an_emulated_device_never_has_more_threads_than_cores():
    cores = len(os.sched_getaffinity(0))
    found = device("pc")
    assert isinstance(found, LocalDevice)
    assert found.kind == "emulated"
    assert found.threads == len(found.cores or ()) == min(4, cores)
    with pytest.raises(InputError, match="at most"):
        device("pc-ort-64t")
