"""The tables of docs/not-classifiers.md, from `results/tasks.json`."""

import json
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.common import RESULTS
from benchmarks.tasks import CAUSAL, OURS, THEIRS, gap

Row = dict[str, Any]
METRICS = {
    "miou_percent": "mIoU {:.1f}%",
    "psnr_db": "PSNR {:.2f} dB",
    "right_percent": "right {:.1f}%",
    "degrees_off": "off by {:.1f}°",
}
NAMES = {
    CAUSAL: "**causal**",
    "magnitude-l2": "L2 magnitude",
    "torch-pruning": "Torch-Pruning",
    "torch-pruning-global": "Torch-Pruning, over all layers",
}


def tasks() -> str:
    """Every method's metrics per task and share of the MACs, and how far causal is ahead of it."""
    record = json.loads((RESULTS / "tasks.json").read_text())
    rows: list[Row] = record["rows"]
    head = "| task | fewer MACs | method | metrics | kept, % | causal is ahead by (95% interval) |"
    lines = [head, "|---|---|---|---|---|---|"]
    for task in dict.fromkeys(r["task"] for r in rows):
        of = [r for r in rows if r["task"] == task]
        lines.append(f"| {task} | | dense | {_metrics(of, 'dense')} | 100 | |")
        lines.append(f"| | | one answer for all | {_metrics(of, 'trivial')} | 0 | |")
        usual = [r.get("usual", {}) for r in of]
        lines += [f"| | | {name} | {_metrics(usual, name)} | | |" for name in usual[0]]
        for ratio in sorted({r["fewer_macs"] for r in of}):
            for method in (*OURS, *THEIRS):
                cell = [r for r in of if (r["fewer_macs"], r["method"]) == (ratio, method)]
                if cell:
                    lines.append(
                        f"| | {ratio:g}x | {NAMES.get(method, method)} | {_cell(rows, cell, task, ratio, method)} |"
                    )
    found, seeds = record["headline"], record["headline"]["seeds"]
    lines += [
        "",
        f"Means over {seeds} seeds, each a training, a draw of {record['calibration_samples']:,} unlabelled "
        f"calibration samples and a seed of the method, on {record['test_samples']:,} test samples. Kept: what is left "
        "of the dense network's lead over one answer for all samples, the mean over metrics; differences are in "
        "its points, paired over seeds. causal is ahead of all others at all ratios on "
        f"{found['causal_ahead']} of {found['tasks']} tasks; its worst difference is "
        f"{found['worst_gap_points']:+.1f} points.",
    ]
    return "\n".join(lines)


def _cell(rows: Sequence[Row], cell: Sequence[Row], task: str, ratio: float, method: str) -> str:
    done = [r for r in cell if "metrics" in r]
    failed = [r["error"] for r in cell if "error" in r]
    if not done:
        return f"{failed[0].replace('|', ' ')} | – | –"
    less = f" ({len(failed)} of {len(cell)} failed)" if failed else ""
    kept = statistics.mean(r["kept_percent"] for r in done)
    ahead = None if method == CAUSAL else gap(rows, task, ratio, method)
    shown = "" if ahead is None else f"{ahead[0]:+.1f} ({ahead[0] - ahead[1]:+.1f} to {ahead[0] + ahead[1]:+.1f})"
    return f"{_metrics(done, 'metrics')}{less} | {kept:.1f} | {shown}"


def _metrics(rows: Sequence[Row], which: str) -> str:
    return ", ".join(METRICS[n].format(statistics.mean(r[which][n] for r in rows)) for n in rows[0][which])


TASKS_TABLES: dict[str, Callable[[], str]] = {"tasks": tasks}
