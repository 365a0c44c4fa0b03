"""Which networks can be pruned, how much of each, and whether the result is right; Torch-Pruning beside it.

Every network has random weights and runs in another process: traced, pruned at random (half of every group, and half
of all units), compared with the masked original, saved, loaded, exported to ONNX. Torch-Pruning prunes half of every
layer of the same network; tracing and its graph building are timed by turns in that process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, arguments, write_record
from benchmarks.coverage_check import RIGHT
from benchmarks.coverage_models import QUICK, SUITES, subjects
from benchmarks.coverage_torch_pruning import installed

Row = dict[str, Any]
TOGETHER = {"transformers": 1, "timm": 6, "small": 100}
"""How many networks share a process: loading the libraries takes longer than many of them."""
RECORDS = {"transformers": "coverage", "small": "coverage", "timm": "coverage_timm"}


def run(options: argparse.Namespace) -> None:
    """Runs what is asked for and adds it to the records."""
    asked = SUITES if options.suite == "all" else (options.suite,)
    wanted = set(options.models or [])
    for suite in sorted(asked, key=lambda name: name != "timm"):  # the main record is written last
        try:
            known = subjects(suite)
        except ImportError as error:
            print(f"{suite}: skipped: {error}", flush=True)
            continue
        names = chosen(suite, list(known), options)
        wanted.difference_update(names)
        for row in measured(suite, names, options):
            if suite == "transformers":  # the table of costs shows no others
                row["memory"] = memory(suite, row["model"], known[row["model"]].doubles, options.time_limit)
            print(line(row), flush=True)
            save(suite, [row], list(known), options)
    if wanted:
        sys.exit(f"no network of these suites is named {min(wanted)!r}")
    for record in dict.fromkeys(RECORDS[suite] for suite in asked):
        path = options.output or record_path(record, options.quick)
        if path.exists():
            print(f"headline: {json.dumps(json.loads(path.read_text())['headline'])}", flush=True)


def chosen(suite: str, known: Sequence[str], options: argparse.Namespace) -> list[str]:
    """The networks of a suite to run."""
    if options.models:
        return [name for name in known if name in options.models]
    if options.quick and suite == "timm":
        return list(known[:2])
    return [name for name in known if name in QUICK or suite == "small" or not options.quick]


def measured(suite: str, names: Sequence[str], options: argparse.Namespace) -> Iterator[Row]:
    """The row of every network, whatever happens to the process that measures it.

    Where one ends a process that several share, the next process goes on behind that one.
    """
    draws = ["--seeds", str(options.seeds), "--repeats", str(options.repeats)]
    left = list(names)
    while left:
        batch = left[: TOGETHER[suite]]
        with tempfile.TemporaryDirectory() as folder:
            trouble = _child([suite, folder, *batch, *draws], len(batch) * options.time_limit)
            found = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
        if found and found[-1].get("stage") != "done":
            found[-1] = blamed(found[-1], trouble or "ended early")
        elif trouble and len(found) < len(batch):  # it ended before the next row was begun
            found.append(blamed({"suite": suite, "model": batch[len(found)]}, trouble))
        yield from found
        left = left[len(found) :]


def memory(suite: str, name: str, doubles: bool, limit: float) -> Row:
    """The memory that tracing takes, each size in a process of its own: a peak is that of a whole process."""
    rows: Row = {}
    for scale in (1, 2) if doubles else (1,):
        with tempfile.TemporaryDirectory() as folder:
            failed = _child([suite, folder, name, "--memory", str(scale)], limit)
            path = Path(folder) / "0000.json"
            rows[f"{scale}x"] = {"error": failed} if failed else json.loads(path.read_text())
    return rows


def _child(arguments: Sequence[str], limit: float) -> str | None:
    """Runs `coverage_run`; what went wrong, if anything did."""
    command = [sys.executable, "-m", "benchmarks.coverage_run", *arguments]
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"}
    try:
        ended = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return f"took more than {limit:g} s"
    if ended.returncode == 0:
        return None
    last = next((text for text in reversed(ended.stderr.splitlines()) if text.strip()), "no message")
    return f"ended with status {ended.returncode}: {last.strip()[:300]}"


def blamed(row: Row, trouble: str) -> Row:
    """The row of a process that did not end well: the pruner that was at work gets the outcome."""
    stage = row.get("stage", "starting")
    column = "torch_pruning" if stage == "pruning with Torch-Pruning" else "whyprune"
    failed = {"outcome": "process ended", "error": f"while {stage}: {trouble}"}
    return {**row, column: {**row.get(column, {}), **failed}}


def save(suite: str, new: Sequence[Row], order: Sequence[str], options: argparse.Namespace) -> None:
    """Adds rows to the suite's record."""
    path = options.output or record_path(RECORDS[suite], options.quick)
    old = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = merged(old, new, order)
    about = {"torch_pruning_version": installed(), "tolerance": "1e-4 of the largest output", "images": 2}
    with redirect_stdout(StringIO()):  # the headline is printed once, at the end
        write_record(
            RECORDS[suite], argparse.Namespace(**{**vars(options), "output": path}), headline(rows), rows, **about
        )


def record_path(name: str, quick: bool) -> Path:
    """Where a record lies."""
    return RESULTS / f"{name}{'-quick' if quick else ''}.json"


def merged(old: Sequence[Row], new: Sequence[Row], order: Sequence[str]) -> list[Row]:
    """`old` with `new` rows added or put in place of their older twins, suite by suite, in the order of the list."""
    rows = {(r["suite"], r["model"]): r for r in [*old, *new]}
    place = {name: index for index, name in enumerate(order)}
    listed = {row["suite"] for row in new}

    def key(pair: tuple[str, str]) -> tuple[int, int]:
        suite, name = pair
        known = [p for p in rows if p[0] == suite]
        return SUITES.index(suite), place.get(name, len(place)) if suite in listed else known.index(pair)

    return [rows[pair] for pair in sorted(rows, key=key)]


def headline(rows: Sequence[Row]) -> dict[str, Any]:
    """The figures of a record: how many networks each pruner got right, and what tracing costs."""
    result: dict[str, Any] = {}
    for suite in dict.fromkeys(row["suite"] for row in rows):
        mine = [row for row in rows if row["suite"] == suite]
        result[f"{suite}_networks"] = len(mine)
        result[f"{suite}_right"] = _right(mine, "whyprune")
        result[f"{suite}_torch_pruning_right"] = _right(mine, "torch_pruning")
        ours = [row.get("whyprune", {}) for row in mine]
        result[f"{suite}_reloaded_equal"] = sum(o.get("reload", {}).get("outcome") == "equal" for o in ours)
        if suite != "small":
            result[f"{suite}_onnx_ok"] = sum(o.get("onnx", {}).get("outcome") == "ok" for o in ours)
            shares = [o["macs_removable_percent"] for o in ours if "macs_removable_percent" in o]
            result[f"{suite}_lowest_macs_removable_percent"] = min(shares, default=0.0)
    for name in ("ResNet-50", "Swin-T"):
        row = next((r for r in rows if r["model"] == name), {})
        ours, theirs = (row.get(column, {}).get("graph_s") for column in ("whyprune", "torch_pruning"))
        if ours and theirs:
            result[f"{name}_trace_s"] = ours
            result[f"{name}_trace_times_torch_pruning"] = ours / theirs
    return result


def _right(rows: Sequence[Row], column: str) -> int:
    return sum(row.get(column, {}).get("outcome") == RIGHT for row in rows)


def line(row: Mapping[str, Any]) -> str:
    """A row as one line."""
    ours, theirs = row.get("whyprune", {}), row.get("torch_pruning", {})
    parts = [ours.get("outcome", "?")]
    if "macs_removable_percent" in ours:
        parts.append(f"{ours['macs_removable_percent']:.1f}% of MACs in {ours['units']} units")
    for kind in ("uniform", "global"):
        found = ours.get(kind, {})
        if found.get("difference") is not None:
            parts.append(f"{kind} {found['macs_ratio']:.2f} of MACs, difference {found['difference']:.1e}")
    parts += [f"{kind} {ours[kind]['outcome']}" for kind in ("reload", "onnx") if kind in ours]
    parts += [f"trace {ours['graph_s']:.1f} s"] if "graph_s" in ours else []
    parts += [f"error: {ours['error']}"] if ours.get("error") else []
    beside = f"Torch-Pruning {theirs.get('outcome', 'did not run')}"
    beside += f" ({theirs['graph_s']:.1f} s)" if "graph_s" in theirs else ""
    return f"{row['suite']} {row['model']}: {', '.join(parts)}; {beside}; {row.get('seconds', 0):.0f} s"


def main() -> None:
    """The command line."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--suite", choices=[*SUITES, "all"], default="all", help="which networks")
    parser.add_argument("--models", nargs="+", help="only these of the suite; other rows of the record are kept")
    parser.add_argument("--repeats", type=int, default=3, help="how often each graph is built")
    parser.add_argument("--time-limit", type=float, default=1200.0, help="seconds for one network")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.repeats = 1, 1
    run(options)


if __name__ == "__main__":
    main()
