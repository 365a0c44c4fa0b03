"""Writes the tables in README.md and docs from the records in `results/`; nothing in them is typed by hand."""

import argparse
import json
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.causal_tools_tables import CAUSAL_TOOLS_TABLES
from benchmarks.common import RESULTS
from benchmarks.coverage_tables import COVERAGE_TABLES
from benchmarks.device_tables import DEVICE_TABLES
from benchmarks.evidence_tables import EVIDENCE_TABLES
from benchmarks.latency_tables import LATENCY_TABLES
from benchmarks.methods_tables import METHODS_TABLES
from benchmarks.runtime_tables import RUNTIME_TABLES
from benchmarks.tasks_tables import TASKS_TABLES

ROOT = Path(__file__).parent.parent
PAGES = (
    *("README.md", "docs/index.md", "docs/coverage.md", "docs/causal-tools.md", "docs/evidence.md"),
    *("docs/devices.md", "docs/budgets.md", "docs/not-classifiers.md", "docs/methods-compared.md"),
)
FROM_RECORDS = (
    *(COVERAGE_TABLES, CAUSAL_TOOLS_TABLES, EVIDENCE_TABLES, DEVICE_TABLES, LATENCY_TABLES, RUNTIME_TABLES),
    *(TASKS_TABLES, METHODS_TABLES),
)
NAMES = {"causal": "**causal**", "magnitude-l2": "L2 magnitude", "taylor": "Taylor", "random": "random"}


def one_shot() -> str:
    """Accuracy per method and budget: plain, batch norm re-estimated, repaired."""
    record = json.loads((RESULTS / "one_shot_resnet56.json").read_text())
    cells: dict[tuple[str, str], dict[float, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in record["rows"]:
        cells[row["method"], row["allocation"]][row["fewer_macs"]].append(row)
    ratios = sorted({row["fewer_macs"] for row in record["rows"]})
    head = "| channels | widths |" + "".join(f" {r:g}x fewer MACs: plain / BN / repaired | params |" for r in ratios)
    lines = [head, "|---|---|" + "---|---|" * len(ratios)]
    for (method, allocation), by_ratio in sorted(cells.items(), key=lambda item: _order(item, ratios[0])):
        widths = "measured curves" if allocation == "curves" else allocation
        columns = "".join(_cell(by_ratio.get(ratio, [])) for ratio in ratios)
        lines.append(f"| {NAMES[method]} | {widths} |{columns}")
    seeds = {m: len({r["seed"] for r in record["rows"] if r["method"] == m}) for m in NAMES}
    dense = record["headline"]["dense_top1_percent"]
    others = max(seeds[name] for name in NAMES if name != "causal")
    lines += [
        "",
        f"Top-1 percent on {record['test_images']:,} test images (dense: {dense:.2f}), "
        f"{record['calibration_images']:,} calibration images. Calibration seeds: {seeds['causal']} for causal (mean "
        f"and range), {others} for the others. "
        "Params: the share that is left.",
    ]
    return "\n".join(lines)


def recovered() -> str:
    """Accuracy after fine-tuning."""
    record = json.loads((RESULTS / "recover_resnet56.json").read_text())
    found = record["headline"]
    low, high = record["recovered_interval_percent"]
    return (
        f"With {found['epochs']} epochs of fine-tuning at {found['macs_ratio']:.0%} of the MACs: "
        f"{found['repaired_top1_percent']:.2f}% after repair with {record['calibration_images']:,} calibration images, "
        f"**{found['recovered_top1_percent']:.2f}%** after recovery (95%: {low:.2f} to {high:.2f}; dense "
        f"{found['dense_top1_percent']:.2f}%). It is distilled from the dense network on mixed images and follows its "
        f"channels; of {len(record['rows'])} configurations the one was chosen that agrees most often with the dense "
        "network on mixtures of held-out images."
    )


def _order(item: tuple[tuple[str, str], dict[float, list[dict[str, Any]]]], ratio: float) -> float:
    rows = item[1].get(ratio, [])
    return -statistics.mean(r["repaired_top1_percent"] for r in rows) if rows else 0.0


def _cell(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return " – | – |"
    parts = [_mean(rows, f"{kind}_top1_percent") for kind in ("plain", "batch_norm", "repaired")]
    params = statistics.mean(r["params_ratio"] for r in rows)
    return f" {' / '.join(parts)} | {params:.0%} |"


def _mean(rows: list[dict[str, Any]], key: str) -> str:
    values = [r[key] for r in rows if r[key] is not None]
    if not values:
        return "–"
    spread = f" ({min(values):.2f}–{max(values):.2f})" if len(values) > 1 and key.startswith("repaired") else ""
    return f"{statistics.mean(values):.2f}{spread}"


def _or_not_run(table: Callable[[], str]) -> str:
    try:
        return table()
    except FileNotFoundError:
        return "Not run yet."


def main(arguments: Sequence[str] = ()) -> int:
    """Puts every table between its markers; with `--check` it writes nothing, and fails if a page is not up to date."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is not up to date")
    check = parser.parse_args(arguments).check
    tables = {
        "one_shot_resnet56": one_shot(),
        "recover_resnet56": recovered(),
        **{name: _or_not_run(table) for tables in FROM_RECORDS for name, table in tables.items()},
    }
    stale = []
    for page in PAGES:
        path = ROOT / page
        text = before = path.read_text()
        for name, table in tables.items():
            pattern = re.compile(rf"(<!-- numbers:{name} -->\n).*?(<!-- /numbers -->)", re.DOTALL)
            text = pattern.sub(lambda match, table=table: f"{match[1]}\n{table}\n\n{match[2]}", text)
        if text != before and check:
            stale.append(page)
        elif text != before:
            path.write_text(text)
    if stale:
        print(f"not up to date: {', '.join(map(str, stale))}: run python -m benchmarks.tables", file=sys.stderr)
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
