"""ONNX Runtime in this process: a device for tests that need real times and no process of their own."""

import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
from torch import nn

from whyprune.devices import export_onnx
from whyprune.devices.base import Measurement
from whyprune.devices.latency import latency_summary


class InProcessOrt:
    """A `Device` on one thread, which also takes the paths of ONNX files."""

    kind, runtime, takes_files = "measured", "ort", True

    def __init__(self, repeats=30, name="test-ort-1t", batch_size=1):
        self.repeats, self.name, self.batch_size, self.calls = repeats, name, batch_size, 0

    def __call__(self, networks, inputs):
        self.calls += 1
        with tempfile.TemporaryDirectory() as folder:
            paths = {name: self._file(name, network, inputs, Path(folder)) for name, network in networks.items()}
            sessions = {name: session(path) for name, path in paths.items()}
        arrays = [t[: self.batch_size].numpy() for t in inputs.tensors()]
        feeds = {n: dict(zip([i.name for i in s.get_inputs()], arrays, strict=True)) for n, s in sessions.items()}
        for name, running in sessions.items():
            for _ in range(3):
                running.run(None, feeds[name])
        samples, order = {name: [] for name in sessions}, list(sessions)
        for _ in range(self.repeats):
            for name in order:
                before = time.perf_counter()
                sessions[name].run(None, feeds[name])
                samples[name].append(1e3 * (time.perf_counter() - before))
            order.reverse()
        times = {name: np.array(values) for name, values in samples.items()}
        latency = {name: latency_summary(t, self.batch_size, 1) for name, t in times.items()}
        about = {"runtime": "ort", "versions": {"onnxruntime": onnxruntime.__version__}}
        return Measurement(self.name, latency, times, {"cpu": "this one"}, **about)

    def _file(self, name, network, inputs, folder):
        if not isinstance(network, nn.Module):
            return network
        export_onnx(network, inputs, folder / f"{name}.onnx")
        return folder / f"{name}.onnx"


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
