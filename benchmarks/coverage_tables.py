"""The tables of docs/coverage.md, from the records of `coverage.py`."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.common import RESULTS
from benchmarks.coverage_check import RIGHT, TOLERANCE

Row = Mapping[str, Any]
ENOUGH_PERCENT = 90.0
SHOWN_REASONS = 3
NONE = "–"


def coverage() -> str:
    """What can be removed of each network of transformers and of whyprune, and whether the result is right."""
    return _networks("transformers", "coverage")


def coverage_timm() -> str:
    """The same for one network of each of timm's families."""
    path = RESULTS / "coverage_timm.json"
    if not path.exists():
        return _networks("timm", "coverage_timm")
    record = json.loads(path.read_text())
    known = {**record["versions"], "Torch-Pruning": record["torch_pruning_version"]}
    versions = ", ".join(f"{n} {known[n]}" for n in ("torch", "torchvision", "timm", "Torch-Pruning") if known.get(n))
    return f"{_networks('timm', 'coverage_timm')}\n\nMeasured with {versions}."


def coverage_small() -> str:
    """Outcomes on the small networks."""
    rows = _rows("small", "coverage")
    head = ["network", "whyprune", "MACs left", "Torch-Pruning", "MACs left"]
    cells = [
        [
            row["model"],
            _outcome(row.get("whyprune", {})),
            _percent(row.get("whyprune", {}).get("uniform", {}).get("macs_ratio")),
            _outcome(row.get("torch_pruning", {})),
            _percent(row.get("torch_pruning", {}).get("macs_ratio")),
        ]
        for row in rows
    ]
    return _table(head, cells, _score(rows))


def coverage_cost() -> str:
    """What tracing takes: seconds beside Torch-Pruning, and memory above one forward pass."""
    head = [
        "network",
        "trace, s",
        "Torch-Pruning, s",
        "ratio",
        "memory above a forward pass, MiB",
        "twice the side, MiB",
    ]
    cells = []
    for row in _rows("transformers", "coverage"):
        ours, theirs = (row.get(column, {}).get("graph_s") for column in ("whyprune", "torch_pruning"))
        memory = [row.get("memory", {}).get(s, {}).get("trace_above_forward_mib") for s in ("1x", "2x")]
        ratio = f"{ours / theirs:.1f}" if ours and theirs else NONE
        cells.append(
            [row["model"], _number(ours, ".2f"), _number(theirs, ".2f"), ratio, *(_number(m, ".0f") for m in memory)]
        )
    return _table(head, cells, "Seconds are medians of runs by turns in one process.")


def coverage_kept() -> str:
    """Why channels are kept, for the networks of which less than 90% of the MACs lie in removable units."""
    rows = [*_rows("transformers", "coverage"), *_rows("timm", "coverage_timm")]
    low = [r for r in rows if r.get("whyprune", {}).get("macs_removable_percent", 100.0) < ENOUGH_PERCENT]
    cells = [[r["model"], f"{r['whyprune']['macs_removable_percent']:.1f}", _reasons(r["whyprune"])] for r in low]
    if rows and not cells:
        return f"There is none: in every network above at least {ENOUGH_PERCENT:g}% of the MACs lie in removable units."
    return _table(["network", "removable MACs, %", "the largest refusals"], cells, "")


COVERAGE_TABLES: dict[str, Callable[[], str]] = {
    table.__name__: table for table in (coverage, coverage_cost, coverage_kept, coverage_small, coverage_timm)
}


def _networks(suite: str, record: str) -> str:
    rows = _rows(suite, record)
    head = [
        "network",
        "MACs, G",
        "params, M",
        "removable MACs / params, %",
        "units (groups)",
        "half of every group: MACs left, difference",
        "half of all units: MACs left, difference",
        "reloaded",
        "ONNX",
        "whyprune",
        "Torch-Pruning",
        "its MACs left",
    ]
    return _table(head, [_network(row) for row in rows], _score(rows))


def _network(row: Row) -> list[str]:
    ours, theirs = row.get("whyprune", {}), row.get("torch_pruning", {})
    shares = [_number(ours.get(f"{kind}_removable_percent"), ".1f") for kind in ("macs", "params")]
    return [
        row["model"],
        _number(row.get("macs", 0) / 1e9, ".2f"),
        _number(row.get("params", 0) / 1e6, ".2f"),
        " / ".join(shares),
        f"{ours['units']:,} ({ours['groups']})" if "units" in ours else NONE,
        _removal(ours.get("uniform", {})),
        _removal(ours.get("global", {})),
        ours.get("reload", {}).get("outcome", NONE),
        _onnx(ours.get("onnx", {})),
        _outcome(ours),
        _outcome(theirs),
        _percent(theirs.get("macs_ratio")),
    ]


def _removal(found: Row) -> str:
    if found.get("difference") is None:
        return str(found.get("outcome", NONE))
    return f"{_percent(found.get('macs_ratio'))}, {found['difference']:.0e}"


def _onnx(found: Row) -> str:
    if found.get("outcome") == "ok":
        return f"{found['difference']:.0e}"
    if str(found.get("dense", "")).startswith("fails too"):
        return "fails, as before pruning"
    return str(found.get("outcome", NONE))


def _outcome(found: Row) -> str:
    if not found:
        return NONE
    outcome = str(found.get("outcome", NONE))
    if outcome == RIGHT:
        return outcome
    why = found.get("error") or ""
    if outcome == "wrong" and found.get("difference") is not None:
        why = f"differs by {_percent(found['difference'])}"
    return f"**{outcome}**" + (f": {_short(why)}" if why else "")


def _reasons(found: Row) -> str:
    shown = found.get("refusals", [])[:SHOWN_REASONS]
    return "; ".join(f"{r['channels']:,} channels: {_short(r['reason'])} (first at `{r['first']}`)" for r in shown)


def _score(rows: Sequence[Row]) -> str:
    right = {c: sum(r.get(c, {}).get("outcome") == RIGHT for r in rows) for c in ("whyprune", "torch_pruning")}
    return (
        f"Right: whyprune {right['whyprune']} of {len(rows)}, Torch-Pruning {right['torch_pruning']} of {len(rows)}. "
        f"A difference is a share of the largest output; right is at most {TOLERANCE:g}."
    )


def _rows(suite: str, record: str) -> list[Row]:
    path = RESULTS / f"{record}.json"
    rows: list[Row] = json.loads(path.read_text())["rows"] if path.exists() else []
    return [row for row in rows if row["suite"] == suite]


def _table(head: Sequence[str], cells: Sequence[Sequence[str]], note: str) -> str:
    if not cells:
        return "Not measured yet."
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + (["", note] if note else []))


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else format(value, form)


def _percent(ratio: float | None) -> str:
    return NONE if ratio is None else f"{ratio:.0%}"


def _short(text: str, limit: int = 90) -> str:
    """Text that fits a cell: no pipes, no tags, no more than `limit` characters, cut at a word."""
    text = re.sub(r"\s+", " ", text.replace("|", "/").replace("<", "‹").replace(">", "›"))
    text = text.replace("[", "\\[").replace("_", "\\_").replace("*", "\\*")
    return text if len(text) <= limit else text[:limit].rsplit(" ", 1)[0] + " …"
