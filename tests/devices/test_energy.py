"""Meters against made-up counters; without one nothing is said."""

import sys
from types import SimpleNamespace

import pytest

from whyprune.devices import energy


class Library:
    """As much of pynvml as a meter reads."""

    def __init__(self, counts):
        self.counts = iter(counts)

    def nvmlInit(self):  # noqa: N802
        pass

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):  # noqa: N802
        count = next(self.counts)
        if isinstance(count, Exception):
            raise count
        return count


def test_a_gpu_counts_millijoules(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", Library([0, 1000, 1250]))
    meter = energy.Nvml()
    assert meter.missing() is None
    meter.begin()
    assert meter.end() == 250


@pytest.mark.parametrize(
    ("module", "says"),
    [(None, "pip install nvidia-ml-py"), (Library([RuntimeError("Not Supported")]), "Not Supported")],
)
def test_a_gpu_that_cannot_be_read_says_why(monkeypatch, module, says):
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert says in energy.Nvml().missing()


def test_a_plugged_meter_comes_before_those_of_parts(monkeypatch):
    class Plug:
        name, measures = "plug", "machine"

    entry = SimpleNamespace(load=lambda: Plug)
    monkeypatch.setattr(energy.metadata, "entry_points", lambda group: [entry] if group == "whyprune.meters" else [])
    assert [m.name for m in energy.meters()] == ["plug", "nvml", "rapl"]
