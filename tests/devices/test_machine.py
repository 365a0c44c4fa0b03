"""The machine's state on this system, and on systems that tell less."""

import json
import os
import platform
from importlib import metadata

import torch

from whyprune.devices import library_versions, machine_state
from whyprune.devices.runner import _cpu_model


def test_state_is_plain_data_that_survives_json():
    state = machine_state()
    assert json.loads(json.dumps(state)) == state
    assert state["python"] == platform.python_version()
    assert state["torch_threads"] == torch.get_num_threads()
    assert state["versions"] == library_versions()
    assert state["versions"]["torch"] == metadata.version("torch")


def test_a_system_that_tells_less_still_gives_a_state(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "getloadavg", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(platform, "processor", lambda: "")
    state = machine_state()
    assert state["load_average"] is None
    assert state["usable_cores"] == os.cpu_count()
    assert _cpu_model(tmp_path / "no-such-file") is None


def test_the_processor_is_read_from_cpuinfo(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name : Other\n")
    assert _cpu_model(cpuinfo) == "Some CPU @ 2 GHz"
