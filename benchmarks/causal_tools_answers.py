"""What the rows of `causal_tools` say about the hypotheses H1 to H7, in numbers."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Rows = list[dict[str, Any]]


def answers(rows: Rows, parts: dict[str, Rows]) -> dict[str, Any]:
    """`headline`, over all networks, and `hypotheses`, network by network, from whatever rows there are."""
    done = [r for r in rows if "skipped" not in r]
    networks = dict.fromkeys(r["network"] for r in rows)
    return {
        "headline": _headline(rows, parts["refuters"]),
        "hypotheses": {n: _hypotheses(_of(n, done), {k: _of(n, part) for k, part in parts.items()}) for n in networks},
    }


def _hypotheses(done: Rows, parts: dict[str, Rows]) -> dict[str, Any]:
    top = largest(done)
    return {
        "H1 observational estimates do not rank units": _regimes(parts["observational"]),
        "H2 refuters do not detect wrong estimates": refuted(parts["refuters"]),
        "H3 masks cover the context effect, not the single effect": _coverage(done),
        "H4 graphical models improve on masked runs": _regimes(parts["observational"], "gcm"),
        "H5 discovery is at chance on runs as they are": _discovery(parts["discovery"]),
        "H6 conditional effects in rounds beat one-shot rankings": _pruned(top, "plain"),
        "H7 recovery closes the gap to random": _gap(top),
    }


def _of(network: str, rows: Rows) -> Rows:
    return [r for r in rows if r["network"] == network]


def largest(rows: Rows) -> Rows:
    """Only the largest budget of every network, and what has none."""
    most: dict[str, int] = {}
    for row in rows:
        most[row["network"]] = max(most.get(row["network"], 0), row["budget"] or 0)
    return [r for r in rows if r["budget"] in (None, most[r["network"]])]


def _mean(rows: Iterable[dict[str, Any]], key: str) -> float | None:
    values = [r[key] for r in rows if r.get(key) is not None]
    return float(np.mean(values)) if values else None


def _by(rows: Rows, key: Callable[[dict[str, Any]], str], value: str) -> dict[str, float | None]:
    return {name: _mean((r for r in rows if key(r) == name), value) for name in dict.fromkeys(map(key, rows))}


def _regimes(rows: Rows, start: str = "") -> dict[str, Any]:
    some = [r for r in rows if r["model"].startswith(start) and "skipped" not in r]

    def key(row: dict[str, Any]) -> str:
        return f"{row['model']}, {row['regime']}"

    return {
        "spearman": _by(some, key, "spearman"),
        "spearman_within": _by(some, key, "spearman_within"),
        "sign_accuracy": _by(some, key, "sign_accuracy"),
    }


def refuted(rows: Rows) -> dict[str, Any]:
    """How often refuters pass estimates of which it is known whether they are wrong."""
    known = [r for r in rows if "skipped" not in r]
    if not known:
        return {}
    wrong = np.array([r["wrong"] for r in known])
    found: dict[str, Any] = {"estimates": len(known), "wrong": int(wrong.sum())}
    found["wrong_sign"] = sum(r["wrong_sign"] for r in known)
    found["wrong_that_pass_all"] = sum(r["wrong"] and all(r["passed"].values()) for r in known)
    found["right_that_pass_all"] = sum(not r["wrong"] and all(r["passed"].values()) for r in known)
    found["auc"] = {name: _auc(wrong, np.array([-r["p"][name] for r in known])) for name in known[0]["p"]}
    return found


def _auc(wrong: np.ndarray, score: np.ndarray) -> float | None:
    """Chance that a wrong estimate has the higher score than a right one."""
    one, other = score[wrong], score[~wrong]
    if not len(one) or not len(other):
        return None
    pairs = one[:, None] - other[None, :]
    return float((pairs > 0).mean() + 0.5 * (pairs == 0).mean())


def _coverage(rows: Rows) -> dict[str, Any]:
    stated = [r for r in rows if r.get("coverage") is not None]

    def key(row: dict[str, Any]) -> str:
        return f"{row['method']} ({row['estimand']}), budget {row['budget']}"

    return {
        "coverage": _by(stated, key, "coverage"),
        "coverage_allowing_truth_error": _by(stated, key, "coverage_allowing_truth_error"),
        "coverage_of_single": _by(stated, key, "coverage_of_single"),
    }


def _discovery(rows: Rows) -> dict[str, Any]:
    some = [r for r in rows if "skipped" not in r]

    def key(row: dict[str, Any]) -> str:
        return f"{row['algorithm']}, {row['regime']}{', in order' if row['tiers'] else ''}"

    return {name: _by(some, key, name) for name in ("precision", "recall", "chance", "direction_accuracy")}


def _pruned(rows: Rows, kind: str) -> dict[str, Any]:
    return _by(rows, lambda r: r["method"], f"pruned_{kind}_percent")


def _gap(rows: Rows) -> dict[str, Any]:
    """Best method's accuracy less that of random, before and after each recovery."""
    found: dict[str, Any] = {}
    for kind in ("plain", "batch_norm", "refit", "fine_tuned"):
        means = {name: value for name, value in _pruned(rows, kind).items() if value is not None}
        if "random" in means and len(means) > 1:
            best = max((n for n in means if n != "random"), key=lambda n: means[n])
            found[kind] = {"best": best, "best_percent": means[best], "random_percent": means["random"]}
            found[kind]["gap_points"] = means[best] - means["random"]
    return found


def _headline(rows: Rows, estimates: Rows) -> dict[str, Any]:
    done = [r for r in rows if "skipped" not in r]
    ranks = _by(largest(done), lambda r: r["method"], "spearman_within")
    found: dict[str, Any] = {f"spearman_within_{name}": value for name, value in ranks.items() if value is not None}
    refuters = refuted(estimates)
    found |= {f"refuter_{k}": refuters[k] for k in ("wrong", "wrong_that_pass_all") if k in refuters}
    found["skipped"] = sum("skipped" in r for r in rows)
    return found
