"""The table of runtimes in docs/devices.md, from its record."""

import json
from collections.abc import Callable
from typing import Any

from benchmarks.common import RESULTS

TITLES = {
    "ort": "ONNX Runtime",
    "openvino": "OpenVINO",
    "ncnn": "ncnn",
    "litert": "LiteRT",
    "executorch": "ExecuTorch",
    "torch": "PyTorch",
    "compile": "torch.compile",
}


def runtimes() -> str:
    """Speed, cold start, memory and size of ResNet-56 and its half-width twin per runtime."""
    record = json.loads((RESULTS / "runtimes.json").read_text())
    rows = [row for row in record["rows"] if "speedup" in row]
    rounds, macs = [row["calm_rounds"] for row in rows], record["headline"]["macs_ratio"]
    heads = ["runtime", "batch", "dense ms", "half ms", "speed-up", "cold start ms", "memory MB", "file MB"]
    heads += ["differs by", "own tool"]
    lines = [
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
        *(_line(row) for row in rows),
        "",
        f"ResNet-56 and its half-width twin ({macs:.2f}x fewer MACs), one thread: medians of {min(rounds):,} to "
        f"{max(rounds):,} interleaved rounds in which nobody took the core (load {_load(rows)}), with the interval of "
        "their ratio. Cold start, memory (above the runtime's own) and file are the dense network's. Differs by: the "
        "largest absolute difference to PyTorch's outputs. Own tool: the least time that the runtime's own benchmark "
        "finds for the same files, over the least of ours.",
    ]
    if "int8" in record:
        lines += ["", _int8(record["int8"])]
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    base, peak = row["baseline_memory_bytes"], row["peak_memory_bytes"].get("dense")
    cold = row["cold_start_ms"].get("dense")
    cells = [
        TITLES[row["runtime"]],
        str(row["batch_size"]),
        f"{row['calm_p50_ms']['dense']:.2f}",
        f"{row['calm_p50_ms']['half']:.2f}",
        f"{row['speedup']:.2f} ({row['speedup_interval'][0]:.2f}–{row['speedup_interval'][1]:.2f})",
        "–" if cold is None else f"{cold:.0f}",
        "–" if peak is None or base is None else f"{(peak - base) / 1e6:.0f}",
        f"{row['size_bytes']['dense'] / 1e6:.1f}",
        f"{max(row['max_abs_difference'].values()):.0e}",
        "–" if row["tool"] is None else f"{row['tool_over_ours_min']:.2f} ({row['tool']})",
    ]
    return f"| {' | '.join(cells)} |"


def _load(rows: list[dict[str, Any]]) -> str:
    loads = [row["machine"]["load_average"][0] for row in rows if row["machine"]["load_average"]]
    return f"{min(loads):.0f} to {max(loads):.0f}" if loads else "unknown"


def _int8(found: dict[str, Any]) -> str:
    (low, high), top1, size = found["speedup_interval"], found["top1_percent"], found["size_bytes"]
    return (
        f"In eight bits (ONNX Runtime, 512 calibration images): {top1['int8']:.2f}% top-1 on {found['images']:,} test "
        f"images against {top1['float']:.2f}%, {size['dense'] / size['int8']:.1f}x smaller, {found['speedup']:.2f}x "
        f"the speed (95%: {low:.2f} to {high:.2f}) at batch 1 on this machine."
    )


RUNTIME_TABLES: dict[str, Callable[[], str]] = {"runtimes": runtimes}
