"""A bundle of two tiny networks, run here once, for tests that read what came back."""

import json
import shutil
import subprocess
import sys

import torch
from torch import nn

from whyprune.data.batches import Batch
from whyprune.devices.bundle import MeasurementRequest, write_bundle
from whyprune.devices.runner import checksum

INPUTS = Batch((torch.arange(12.0).reshape(4, 3),), {})
REQUEST = MeasurementRequest(repeats=12, seconds=0.2, batch_size=2)


class Times(nn.Module):
    """Multiplies by a number."""

    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([factor]))

    def forward(self, x):
        return self.factor * x


NETWORKS = {"dense": Times(2.0), "pruned": Times(3.0)}


def bundle_with_results(folder):
    """(the bundle as it was written, as an archive; a copy of it as a folder, with results)."""
    home = write_bundle(NETWORKS, INPUTS, folder / "home.tar.gz", REQUEST)
    shutil.unpack_archive(home, folder / "away", filter="data")
    away = folder / "away" / "home"
    done = subprocess.run([sys.executable, away / "runner.py"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return home, away


def rewritten(folder, change):
    """Changes a record and gives it the checksum that fits, as somebody would who knows how."""
    path = folder / "record.json"
    record = json.loads(path.read_text())
    change(record)
    record["sha256"] = checksum(record)
    path.write_text(json.dumps(record, indent=1) + "\n")
