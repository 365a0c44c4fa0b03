"""Tables of docs/budgets.md: what budgets in latency reach, and where the time goes that pruning does not reach."""

import json
import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.common import RESULTS

MODELS = {
    "resnet56": "ResNet-56",
    "mobilenet_v2": "MobileNetV2 (32 x 32, random weights)",
    "resnet50": "ResNet-50 (random weights)",
}
RUNTIMES = {"ort": "ONNX Runtime", "openvino": "OpenVINO"}


def _rows() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((RESULTS / "latency_budget.json").read_text())["rows"]
    return sorted(found, key=lambda row: (list(MODELS).index(row["model"]), row["threads"], row["batch"]))


def budgets() -> str:
    """Asked, measured, realised, and accuracy beside a MACs plan that is as fast."""
    lines = [
        "| network | runtime | threads, batch | measured ratio (95%) | MACs ratio | blocks gone | realised over MACs | "
        "top-1 % | less the MACs plan as fast, of widths (95%) | of widths and blocks (95%) | "
        "Torch-Pruning's, as fast and repaired, % |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in _rows():
        low, high = row["measured_interval"]
        lines.append(
            f"| {MODELS[row['model']]} | {RUNTIMES[row['runtime']]} | {row['threads']}, {row['batch']} | "
            f"{row['measured_ratio']:.3f} ({low:.3f} to {high:.3f}) | {row['macs_ratio']:.3f} | "
            f"{len(row['blocks'])} | {row['realised_over_macs']:.2f} | {_top1(row, 'latency')} | "
            f"{_gain(row, 'macs')} | {_gain(row, 'macs-blocks')} | {_top1(row, 'torch-pruning-repaired')} |"
        )
    lines += ["", "Half the latency was asked for. Top-1 on 10,000 test images, repaired, without a gradient step."]
    return "\n".join(lines)


def _top1(row: dict[str, Any], name: str) -> str:
    found = row.get("top1_percent", {}).get(name)
    return "–" if found is None else f"{found:.2f}"


def _gain(row: dict[str, Any], other: str) -> str:
    """Points over another network that is as fast, with the interval of the paired difference."""
    gap = row.get("latency_plan_over", {}).get(other)
    return "–" if gap is None else "{:+.2f} ({:+.2f} to {:+.2f})".format(gap["points"], *gap["interval"])


def operators() -> str:
    """Where the time of one call goes, in ONNX Runtime."""
    lines = [
        "| network | threads, batch | | call, µs | convolutions | other operators | outside operators | operators |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in _rows():
        for name, found in row.get("profile", {}).items():
            conv = found["by_kind_us"].get("Conv", 0.0)
            other = found["call_us"] - conv - found["outside_operators_us"]
            which = "dense" if name == "dense" else "pruned"
            lines.append(
                f"| {MODELS[row['model']]} | {row['threads']}, {row['batch']} | {which} | "
                f"{found['call_us']:,.0f} | {conv:,.0f} | {other:,.0f} | "
                f"{found['outside_operators_us']:,.0f} | {found['operators']} |"
            )
    return "\n".join(lines)


def plans_by_devices() -> str:
    """On every device: its own plan, the one for MACs, and those for the other devices."""
    record = json.loads((RESULTS / "plans_by_devices.json").read_text())
    ratio = {(row["plan_for"], row["device"]): row["latency_ratio"] for row in record["rows"]}
    kinds = {row["device"]: row["device_kind"] for row in record["rows"]}
    lines = [
        "| device | | its own plan | the plan for MACs, of widths | plans for other devices: least, median, most |",
        "|---|---|---|---|---|",
    ]
    for name, kind in kinds.items():
        others = [value for (made, on), value in ratio.items() if on == name and made not in (name, "macs")]
        own = f"{ratio[name, name]:.2f}" if (name, name) in ratio else "none"
        spread = f"{min(others):.2f}, {statistics.median(others):.2f}, {max(others):.2f}"
        lines.append(f"| {name} | {kind} | {own} | {ratio['macs', name]:.2f} | {spread} |")
    head = record["headline"]
    lines += [
        "",
        f"Latency over the dense network's, on {len(kinds)} devices. A plan for another device is slower than the "
        f"device's own by {head['plan_for_another_device_slower_median_percent']}% (median), at worst by "
        f"{head['plan_for_another_device_slower_worst_percent']}%; one for MACs by "
        f"{head['plan_for_macs_slower_median_percent']}%, at worst {head['plan_for_macs_slower_worst_percent']}%.",
    ]
    lines += [f"No plan for {name}: {why}." for name, why in record.get("refused", {}).items()]
    return "\n".join(lines)


LATENCY_TABLES: dict[str, Callable[[], str]] = {
    "latency_budget": budgets,
    "latency_operators": operators,
    "plans_by_devices": plans_by_devices,
}
