"""ONNX Runtime in this process: a device for tests that need real rows and no process of their own."""

import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime

from whyprune.devices import export_onnx
from whyprune.devices.base import Measurement
from whyprune.results import LatencyMs


class InProcessOrt:
    """A `Device` on one thread, which also runs ONNX files as they are."""

    kind = "measured"

    def __init__(self, repeats=30, name="test-ort-1t", batch_size=1):
        self.repeats, self.name, self.batch_size, self.calls = repeats, name, batch_size, 0

    def __call__(self, networks, inputs):
        with tempfile.TemporaryDirectory() as folder:
            paths = {name: Path(folder, f"{name}.onnx") for name in networks}
            for name, network in networks.items():
                export_onnx(network, inputs, paths[name])
            arrays = [t[: self.batch_size].numpy() for t in inputs.tensors()]
            return self.run_onnx(paths, arrays, repeats=self.repeats, seconds=6.0)

    def run_onnx(self, paths, inputs, *, repeats, seconds):
        self.calls += 1
        sessions = {name: session(path) for name, path in paths.items()}
        feeds = {n: dict(zip([i.name for i in s.get_inputs()], inputs, strict=True)) for n, s in sessions.items()}
        for name, running in sessions.items():
            for _ in range(3):
                running.run(None, feeds[name])
        samples = {name: [] for name in sessions}
        start, order = time.perf_counter(), list(sessions)
        for done in range(repeats):
            if done >= 3 and time.perf_counter() - start > seconds:
                break
            for name in order:
                before = time.perf_counter()
                sessions[name].run(None, feeds[name])
                samples[name].append(1e3 * (time.perf_counter() - before))
            order.reverse()
        times = {name: np.array(values) for name, values in samples.items()}
        latency = {
            name: LatencyMs(
                p50_ms=np.percentile(t, 50),
                p90_ms=np.percentile(t, 90),
                p99_ms=np.percentile(t, 99),
                repeats=len(t),
                batch_size=self.batch_size,
                threads=1,
            )
            for name, t in times.items()
        }
        versions = {"onnxruntime": onnxruntime.__version__}
        return Measurement(self.name, latency, times, {"cpu": "this one"}, runtime="ort", versions=versions)


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
