"""A bundle on an ARM processor without a board: qemu-user, with a Python and an ONNX Runtime of that processor."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from whyprune.data.batches import Batch
from whyprune.devices.bundle import MeasurementRequest, write_bundle
from whyprune.devices.instructions import emulated_instructions
from whyprune.devices.returned import read_results
from whyprune.errors import DeviceError, InputError, MissingDependencyError

PYTHON = Path(os.environ.get("WHYPRUNE_AARCH64", ""), "python")

pytestmark = pytest.mark.skipif(
    not os.access(PYTHON, os.X_OK),
    reason="no emulated ARM machine: prepare one with tools/aarch64.sh DIR and name it in WHYPRUNE_AARCH64",
)
INPUTS = Batch((torch.randn(2, 8, 12, 12, generator=torch.Generator().manual_seed(0)),), {})


def stack(layers, channels=8):
    """Equal 3x3 convolutions, one after the other."""
    torch.manual_seed(layers)
    return nn.Sequential(*(m for _ in range(layers) for m in (nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())))


def test_a_bundle_gives_the_same_logits_on_arm(tmp_path):
    networks = {"dense": nn.Sequential(stack(3), nn.Flatten(), nn.Linear(8 * 144, 10)), "pruned": stack(1)}
    folder = write_bundle(
        networks,
        INPUTS,
        tmp_path / "bundle",
        MeasurementRequest(min_warmup=1, repeats=3, seconds=1.0, each_alone=False),
    )
    done = subprocess.run([PYTHON, folder / "runner.py"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = read_results(folder)
    assert found.machine["architecture"] == "aarch64"
    assert found.kind == "emulated"
    assert found.device == "cortex-a72 in qemu, ort 1t"
    assert found.max_abs_difference.keys() == networks.keys()
    assert max(found.max_abs_difference.values()) < 1e-5


def test_instructions_add_up_layer_by_layer_and_repeat():
    networks = {"two": stack(2), "four": stack(4), "six": stack(6), "two again": stack(2)}
    try:
        counted = emulated_instructions(networks, INPUTS, PYTHON)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    assert counted["two"] == pytest.approx(counted["two again"], rel=0.01)
    # Each convolution is 8 * 8 * 9 * 144 multiplications, of which an instruction does four at most.
    more = counted["four"] - counted["two"]
    assert more > 2 * 8 * 8 * 9 * 144 / 4
    assert counted["six"] - counted["four"] == pytest.approx(more, rel=0.02)


def test_counting_refuses_what_it_cannot_count(tmp_path):
    with pytest.raises(MissingDependencyError, match="no emulated machine"):
        emulated_instructions({"one": stack(1)}, INPUTS, tmp_path / "python")
    with pytest.raises(InputError, match="batch_size 3"):
        emulated_instructions({"one": stack(1)}, INPUTS, PYTHON, batch_size=3)
    with pytest.raises(DeviceError, match=r"more than 0\.01 seconds"):
        emulated_instructions({"one": stack(1)}, INPUTS, PYTHON, timeout_s=0.01)
