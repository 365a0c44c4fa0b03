"""ResNet-56 and its half-width twin on every runtime that is installed, beside the runtimes' own tools.

Both networks run interleaved in one process per runtime; passes over all runtimes, each followed by the runtime's own
tool on the same files, so that what changes on the machine changes all of them. The twin is cut by whyprune: the first
half of every group's units goes, which leaves a quarter of the MACs. One thread.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import whyprune as wp
from benchmarks.common import Stopwatch, arguments, calibration, cifar10, fingerprint, trained, write_record
from whyprune.data.batches import Batch
from whyprune.devices import LocalDevice, Measurement, accuracy, latency_ratio
from whyprune.devices.artifacts import OnnxNetwork, quantize_onnx
from whyprune.devices.artifacts.cache import SHARED
from whyprune.devices.runtimes import RUNTIMES
from whyprune.errors import WhypruneError

ONCE = ("compile", "executorch")
"""Measured once, after all passes: every pass would compile, or start PyTorch, for minutes."""
COMPARED = ("ort", "openvino", "ncnn", "litert", "executorch", "torch", "compile")
Tool = Callable[[nn.Module, Path, Batch, float], tuple[float, float]]
"""(model, file, inputs, seconds) to median and least ms."""


def half_width(network: wp.Network) -> nn.Module:
    """The network without the first half of every group's units."""
    groups = (group.units for group in network.groups)
    return wp.remove(network, [unit for units in groups for unit in units[: len(units) // 2]])


def benchmark_app(_: nn.Module, path: Path, __: Batch, seconds: float) -> tuple[float, float]:
    """OpenVINO's tool: synchronous calls, held to one thread and single precision as we hold it."""
    options = "-api sync -hint none -nthreads 1 -nstreams 1 -infer_precision f32 -pin NO -report_type no_counters"
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(sys.executable).with_name("benchmark_app"))
        more = ["-m", str(path), "-t", str(max(1, round(seconds))), "-json_stats", "-report_folder", folder]
        subprocess.run([program, *options.split(), *more], check=True, capture_output=True)
        report = json.loads(Path(folder, "benchmark_report.json").read_text(encoding="utf-8"))
    found = report["execution_results"]
    return float(found["latency (ms)"]), float(found["min latency"])


def litert_benchmark(_: nn.Module, path: Path, batch: Batch, __: float) -> tuple[float, float]:
    """LiteRT's tool; it rounds to hundredths of a millisecond."""
    with tempfile.TemporaryDirectory() as folder:
        program, result = str(Path(sys.executable).with_name("litert-benchmark")), Path(folder, "result.json")
        runs = "200" if len(batch) == 1 else "50"
        counts = ["--num_threads", "1", "--num_runs", runs, "--warmup_runs", "10"]
        subprocess.run(
            [program, "--model", str(path), *counts, "--result_json", str(result)], check=True, capture_output=True
        )
        report = json.loads(result.read_text(encoding="utf-8"))
    return float(report["latency"]["median_ms"]), float(report["latency"]["min_ms"])


def torch_timer(model: nn.Module, _: Path, batch: Batch, seconds: float) -> tuple[float, float]:
    """PyTorch's tool on the module itself, in this process."""
    from torch.utils.benchmark import Timer

    with torch.inference_mode():
        timer = Timer("model(x)", globals={"model": model, "x": batch.args[0]}, num_threads=1)
        times = timer.adaptive_autorange(min_run_time=seconds, max_run_time=2 * seconds).times
    return 1000 * statistics.median(times), 1000 * min(times)


TOOLS: dict[str, tuple[str, Tool]] = {
    "openvino": ("benchmark_app", benchmark_app),
    "litert": ("litert-benchmark", litert_benchmark),
    "torch": ("torch.utils.benchmark", torch_timer),
}
"""ONNX Runtime, ncnn and ExecuTorch have tools too, but none in their Python packages."""


class Column:
    """One runtime at one batch size, over the passes."""

    def __init__(self, runtime: str, batch: Batch) -> None:
        self.runtime, self.batch = runtime, batch
        self.found: list[Measurement] = []
        self.tool: list[dict[str, tuple[float, float]]] = []
        self.failed: str | None = None
        self.seconds = 0.0

    def measure(self, networks: dict[str, nn.Module], seconds: float) -> None:
        """One pass; what fails once is not tried again."""
        if self.failed or (self.found and self.runtime in ONCE):
            return
        watch, alone = Stopwatch(), not self.found and self.runtime != "compile"
        try:
            device = LocalDevice(
                self.runtime,
                batch_size=len(self.batch),
                seconds=seconds,
                repeats=10**5,
                each_alone=alone,
                timeout_s=2400,
            )
            self.found.append(device(networks, self.batch))
            if self.runtime in TOOLS:
                self.tool.append({name: self.with_tool(model, seconds / 2) for name, model in networks.items()})
        except (WhypruneError, subprocess.CalledProcessError) as error:
            self.failed = str(error)
        self.seconds += watch.seconds
        print(self.runtime, len(self.batch), self.failed or self.medians(), f"{self.seconds:.0f} s", flush=True)

    def with_tool(self, model: nn.Module, seconds: float) -> tuple[float, float]:
        """The tool's median and least ms, on the same file."""
        path = SHARED.get(RUNTIMES[self.runtime].format, model, self.batch)[0].path
        return TOOLS[self.runtime][1](model, path, self.batch, seconds)

    def medians(self) -> list[dict[str, float]]:
        """Per pass and network, in ms."""
        return [{name: times.p50_ms for name, times in found.latency.items()} for found in self.found]

    def row(self) -> dict[str, Any]:
        """For the record."""
        row: dict[str, Any] = {"runtime": self.runtime, "batch_size": len(self.batch), "threads": 1}
        if self.failed or not self.found:
            return {**row, "failed": self.failed}
        first = self.found[0]
        samples = {n: np.concatenate([f.samples_ms[n] for f in self.found]) for n in first.samples_ms}
        calm = [np.concatenate(parts) for parts in zip(*(f.calm_ms("dense", "half") for f in self.found), strict=True)]
        ratio = latency_ratio(calm[0], calm[1])
        medians = self.medians()
        return {
            **row,
            "versions": first.versions,
            "rounds": len(samples["dense"]),
            "calm_rounds": len(calm[0]),
            "calm_p50_ms": {"dense": float(np.median(calm[0])), "half": float(np.median(calm[1]))},
            "p50_ms": {n: float(np.median(s)) for n, s in samples.items()},
            "p90_ms": {n: float(np.percentile(s, 90)) for n, s in samples.items()},
            "min_ms": {n: float(s.min()) for n, s in samples.items()},
            "throughput_per_s": {n: 1000 * len(self.batch) / float(np.median(s)) for n, s in samples.items()},
            "speedup": ratio.speedup,
            "speedup_interval": ratio.interval,
            "speedup_min": float(samples["dense"].min() / samples["half"].min()),
            "speedup_per_pass": [m["dense"] / m["half"] for m in medians],
            "p50_ms_per_pass": medians,
            "cold_start_ms": first.cold_start_ms,
            "peak_memory_bytes": first.peak_memory_bytes,
            "baseline_memory_bytes": first.baseline_memory_bytes,
            "size_bytes": first.size_bytes,
            "energy_mj": first.energy_mj or None,
            "max_abs_difference": first.max_abs_difference,
            "machine": first.machine,
            **self.agreement(medians),
        }

    def agreement(self, medians: Sequence[dict[str, float]]) -> dict[str, Any]:
        """What the runtime's own tool says, over what we say, in the same pass."""
        if not self.tool:
            return {"tool": None}
        least = [{n: float(s.min()) for n, s in found.samples_ms.items()} for found in self.found]
        p50 = [t[n][0] / m[n] for t, m in zip(self.tool, medians, strict=True) for n in m]
        best = [t[n][1] / m[n] for t, m in zip(self.tool, least, strict=True) for n in m]
        return {
            "tool": TOOLS[self.runtime][0],
            "tool_p50_and_min_ms_per_pass": self.tool,
            "tool_over_ours_p50": statistics.median(p50),
            "tool_over_ours_p50_per_pass": p50,
            "tool_over_ours_min": statistics.median(best),
            "tool_over_ours_min_per_pass": best,
            "tool_speedup_min": min(t["dense"][1] for t in self.tool) / min(t["half"][1] for t in self.tool),
        }


def int8(model: nn.Module, source: Any, normalization: Any, images: int) -> dict[str, Any]:
    """The quantised file's accuracy beside the original's, on test images, and its speed."""
    from benchmarks.common import test_images

    batches = [Batch((x,), {}) for x, _ in calibration(source, normalization, 512, 0)]
    one = Batch((batches[0].args[0][:1],), {})
    path = SHARED.get("onnx", model, one)[0].path
    with tempfile.TemporaryDirectory() as folder:
        quantised = Path(folder, "int8.onnx")
        quantize_onnx(path, quantised, batches)
        top1 = {
            name: accuracy(OnnxNetwork(file), test_images(source, normalization, images), progress=False).top1_percent
            for name, file in (("float", path), ("int8", quantised))
        }
        found = LocalDevice(seconds=3.0, repeats=10**5)({"dense": path, "int8": quantised}, one)
    ratio = latency_ratio(found.samples_ms["dense"], found.samples_ms["int8"])
    return {
        "images": images,
        "top1_percent": top1,
        "size_bytes": found.size_bytes,
        "speedup": ratio.speedup,
        "speedup_interval": ratio.interval,
    }


def headline_of(rows: Sequence[dict[str, Any]], macs: dict[str, int]) -> dict[str, Any]:
    """Ratios of medians over the rounds in which nobody took the core; intervals are in the rows."""
    measured = [row for row in rows if "speedup" in row]
    agreeing = [row for row in measured if row["tool"]]
    worst = {of: max((abs(row[f"tool_over_ours_{of}"] - 1) for row in agreeing), default=None) for of in ("min", "p50")}
    return {
        "macs_ratio": round(macs["dense"] / macs["half"], 3),
        **{f"speedup_{r['runtime']}_b{r['batch_size']}": round(r["speedup"], 3) for r in measured},
        **{f"largest_tool_disagreement_{of}_percent": w and round(100 * w, 1) for of, w in worst.items()},
    }


def run(options: argparse.Namespace) -> None:
    """Measures, prints and writes the record: after every pass, so that a run that is ended early leaves one."""
    torch.set_num_threads(1)
    source = cifar10()
    model, normalization = trained("resnet20" if options.quick else "resnet56")
    images = next(iter(calibration(source, normalization, 128, 0)))[0]
    network = wp.trace(model, images[:2])
    networks = {"dense": network.model, "half": half_width(network)}
    macs = {"dense": network.cost().macs, "half": wp.trace(networks["half"], images[:2]).cost().macs}
    seconds, sizes = (1.0, [1]) if options.quick else (options.seconds, options.batch_sizes)
    runtimes = [r for r in options.runtimes if RUNTIMES[r].missing() is None]
    columns = [Column(r, Batch((images[:size],), {})) for r in runtimes for size in sizes if r != "ncnn" or size == 1]
    more: dict[str, Any] = {
        "macs": macs,
        "missing": {r: RUNTIMES[r].missing() for r in RUNTIMES if RUNTIMES[r].missing()},
        "data_fingerprint": fingerprint(source),
    }

    def measure(some: Sequence[Column]) -> None:
        for column in some:
            column.measure(networks, seconds)
        rows = [column.row() for column in columns if column.failed or column.found]
        write_record("runtimes", options, headline_of(rows, macs), rows, **more)

    for _ in range(1 if options.quick else options.passes):
        measure([column for column in columns if column.runtime not in ONCE])
    more["int8"] = int8(model, source, normalization, 500 if options.quick else 2000)
    measure([])
    for column in columns:
        if column.runtime in ONCE:
            measure([column])


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--passes", type=int, default=3, help="over all runtimes")
    parser.add_argument("--seconds", type=float, default=4.0, help="of rounds per pass, runtime and batch size")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 32], help="samples per call")
    parser.add_argument("--runtimes", nargs="+", default=list(COMPARED), choices=list(RUNTIMES), help="which")
    run(parser.parse_args())
