"""The tables of docs/causal-tools.md, from the record of `causal_tools`, or of its quick run if there is no other."""

import json
import statistics
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.causal_tools_answers import Rows, largest, refuted
from benchmarks.common import RESULTS


def record() -> dict[str, Any]:
    """The full record, else the quick one."""
    full = RESULTS / "causal_tools.json"
    path = full if full.exists() else RESULTS / "causal_tools-quick.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def estimators(known: dict[str, Any]) -> str:
    """Every estimator at every budget, mean over seeds, network by network."""
    parts = [_provenance(known)]
    for network in dict.fromkeys(r["network"] for r in known["rows"]):
        rows = [r for r in known["rows"] if r["network"] == network and r.get("spearman") is not None]
        columns = {
            "rank correlation": ("spearman", 2),
            "within layers": ("spearman_within", 2),
            "weakest quarter found": ("bottom_overlap", 2),
            "error / mean effect": ("mae_over_mean_effect", 2),
            "coverage": ("coverage", 2),
            "R² of joint effects (10%)": ("joint_r2_0.1", 2),
            "pruned, plain %": ("pruned_plain_percent", 1),
            "pruned, BN %": ("pruned_batch_norm_percent", 1),
            "seconds": ("seconds", 1),
            "forwards per unit": ("forwards_per_unit", 1),
        }
        parts += [f"**{network}**", _table(rows, {"method": _text("method"), "budget": _text("budget")}, columns)]
    return "\n\n".join(parts)


def networks(known: dict[str, Any]) -> str:
    """What was trained, and the budgets of its estimators."""
    lines = [
        "| network | seed | units | dense, top-1 on audit images | audit images | budgets |",
        "|---|---|---|---|---|---|",
    ]
    for one in sorted(known["networks"], key=lambda r: (r["network"], r["seed"])):
        budgets = sorted({r["budget"] for r in known["rows"] if r["network"] == one["network"] and r["budget"]})
        lines.append(
            f"| {one['network']} | {one['seed']} | {one['units']} | {one['dense_top1_percent']:.1f}% "
            f"| {one['audit_images']} | {', '.join(map(str, budgets))} |"
        )
    return "\n".join(lines)


def models(known: dict[str, Any]) -> str:
    """The same models on runs as they are and on masked runs."""
    columns = {
        "rank correlation": ("spearman", 2),
        "within layers": ("spearman_within", 2),
        "sign right": ("sign_accuracy", 2),
        "error / mean effect": ("mae_over_mean_effect", 2),
    }
    keys = {"network": _text("network"), "model": _text("model"), "fitted to": _text("regime")}
    return _table(known["observational"], keys, columns)


def discovery(known: dict[str, Any]) -> str:
    """Every algorithm against the network's own wiring."""
    columns = {
        "precision": ("precision", 2),
        "chance": ("chance", 2),
        "recall": ("recall", 2),
        "arrows right": ("direction_accuracy", 2),
    }
    keys = {
        "network": _text("network"),
        "algorithm": _text("algorithm"),
        "runs": _text("regime"),
        "order of layers": lambda r: "given" if r["tiers"] else "–",
    }
    return _table(known["discovery"], keys, columns)


def refuters(known: dict[str, Any]) -> str:
    """How often each refuter passes wrong and right estimates."""
    rows = [r for r in known["refuters"] if "skipped" not in r]
    lines = ["| refuter | passes wrong estimates | passes right estimates | AUC |", "|---|---|---|---|"]
    auc = refuted(known["refuters"]).get("auc", {})
    for name in rows[0]["passed"] if rows else ():
        cells = []
        for wrong in (True, False):
            some = [r["passed"][name] for r in rows if r["wrong"] is wrong]
            cells.append(f"{sum(some)} of {len(some)}")
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {_number(auc.get(name), 2)} |")
    return "\n".join(lines)


def pruning(known: dict[str, Any]) -> str:
    """Accuracy after removing a quarter of the units, at the largest budget."""
    rows = [r for r in largest(known["rows"]) if "pruned_plain_percent" in r]
    columns = {
        "plain": ("pruned_plain_percent", 1),
        "BN re-estimated": ("pruned_batch_norm_percent", 1),
        "refitted": ("pruned_refit_percent", 1),
        "fine-tuned": ("pruned_fine_tuned_percent", 1),
    }
    table = _table(rows, {"network": _text("network"), "channels by": _text("method")}, columns)
    told = [_promised(r) for r in rows if r.get("predicted_joint") is not None]
    return (
        f"{table}\n\nJoint effect promised (the sum of the effects) and measured: {'; '.join(told)}." if told else table
    )


def _promised(row: dict[str, Any]) -> str:
    return (
        f"{row['method']}, {row['network']} seed {row['seed']}: {row['predicted_joint']:.2f} and "
        f"{row['measured_joint']:.2f}"
    )


def hypotheses(known: dict[str, Any]) -> str:
    """One line of numbers for each hypothesis, one column for each network."""
    columns = {name: _answered(found) for name, found in known["hypotheses"].items()}
    lines = ["| hypothesis | " + " | ".join(columns) + " |", "|" + "---|" * (1 + len(columns))]
    rows = next(iter(columns.values()), {})
    lines += [f"| {row} | " + " | ".join(column[row] for column in columns.values()) + " |" for row in rows]
    return "\n".join(lines)


def _answered(found: dict[str, Any]) -> dict[str, str]:
    """What was measured of each hypothesis on one network."""
    ranks = found["H1 observational estimates do not rank units"]["spearman_within"]
    graphical = found["H4 graphical models improve on masked runs"]["spearman_within"]
    covered = found["H3 masks cover the context effect, not the single effect"]
    context = [k for k in covered["coverage"] if "(context)" in k]
    wiring = found["H5 discovery is at chance on runs as they are"]
    pruned = found["H6 conditional effects in rounds beat one-shot rankings"]
    gaps = found["H7 recovery closes the gap to random"]
    checks = found["H2 refuters do not detect wrong estimates"]
    best = sorted(pruned.items(), key=lambda i: -(i[1] or 0))[:4]
    return {
        "H1: observational estimates do not rank units (rank correlation within layers)": (
            f"{_range(_some(ranks, 'observational'))} on runs as they are, "
            f"{_range(_some(ranks, 'masked'))} on masked runs"
        ),
        "H2: refuters do not detect wrong estimates": (
            f"{checks.get('wrong')} of {checks.get('estimates')} wrong, "
            f"{checks.get('wrong_that_pass_all')} of these pass all; AUC {_range((checks.get('auc') or {}).values())}"
        ),
        "H3: intervals of random masks cover the context effect, not the single effect": (
            f"{_range(covered['coverage'][k] for k in context)} of context effects, "
            f"{_range(covered['coverage_of_single'][k] for k in context)} of single effects"
        ),
        "H4: graphical models improve on masked runs (rank correlation within layers)": (
            f"{_range(_some(graphical, 'observational'))} → {_range(_some(graphical, 'masked'))}"
        ),
        "H5: discovery finds the wiring at chance on runs as they are, and better on masked runs (precision)": (
            f"{_range(_some(wiring['precision'], 'observational'))} → {_range(_some(wiring['precision'], 'masked'))}, "
            f"chance {_range(wiring['chance'].values())}"
        ),
        "H6: conditional effects in rounds beat one-shot rankings (top-1 without repair)": (
            "; ".join(f"{name} {value:.1f}%" for name, value in best if value)
            + f"; random {pruned.get('random') or float('nan'):.1f}%"
        ),
        "H7: recovery closes the gap to random (points between the best ranking and random)": ", ".join(
            f"{kind.replace('_', ' ')} {row['gap_points']:.1f}" for kind, row in gaps.items()
        ),
    }


def _some(values: dict[str, float | None], part: str) -> list[float | None]:
    return [value for name, value in values.items() if f", {part}" in name]


def _range(values: Iterable[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{min(known):.2f} to {max(known):.2f}" if known else "–"


def _text(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: "–" if row.get(name) is None else str(row[name])


def _table(rows: Rows, keys: dict[str, Callable[[dict[str, Any]], str]], columns: dict[str, tuple[str, int]]) -> str:
    """Means over the rows that share all keys."""
    groups: dict[tuple[str, ...], Rows] = {}
    for row in rows:
        if "skipped" not in row:
            groups.setdefault(tuple(key(row) for key in keys.values()), []).append(row)
    lines = ["| " + " | ".join([*keys, *columns]) + " |", "|" + "---|" * (len(keys) + len(columns))]
    for names, some in groups.items():
        cells = [_number(_mean(some, field), digits) for field, digits in columns.values()]
        lines.append("| " + " | ".join([*names, *cells]) + " |")
    return "\n".join(lines)


def _mean(rows: Rows, name: str) -> float | None:
    values = [r[name] for r in rows if r.get(name) is not None]
    return statistics.mean(values) if values else None


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _provenance(known: dict[str, Any]) -> str:
    seeds = len({(r["network"], r["seed"]) for r in known["networks"]})
    kind = "Quick run" if known["quick"] else "Run"
    return f"{kind} of {known['time'][:10]}, commit {known['git_commit']}, {seeds} trained networks. Means over seeds."


def _written(table: Callable[[dict[str, Any]], str]) -> Callable[[], str]:
    return lambda: table(record())


CAUSAL_TOOLS_TABLES = {
    "causal_tools_networks": _written(networks),
    "causal_tools_hypotheses": _written(hypotheses),
    "causal_tools_estimators": _written(estimators),
    "causal_tools_models": _written(models),
    "causal_tools_discovery": _written(discovery),
    "causal_tools_refuters": _written(refuters),
    "causal_tools_pruning": _written(pruning),
}
