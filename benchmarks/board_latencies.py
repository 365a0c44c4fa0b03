"""Published latencies of boards: who predicts a network that was not measured on a board, and how well.

Every protocol holds out whole boards (all runs of a chip): what is learned from "other boards" never saw the board
that is predicted. On that board some networks are measured, the others are predicted.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.ncnn_networks import NETWORKS
from whyprune.devices.fit import CHANNEL_RAMP, Prior, Problem, learn_prior, posterior_mode, weak_prior
from whyprune.structure.operation_costs import OperationCost

Array = NDArray[np.float64]
MIN_NETWORKS = 12
CHIP = re.compile(
    r"RK\d{4}|BCM\d{4}|Snapdragon (?:X Elite|8 Gen \d|\w+)|Kirin \d+|KunPeng \d+|FT-2000|i\d-\w+", re.IGNORECASE
)


@dataclass(frozen=True)
class BoardLatencies:
    """Log ms, shape (runs, networks), NaN where there is none; the chip of every run; the layers of every network."""

    log_ms: Array
    chips: NDArray[np.str_]
    names: tuple[str, ...]
    layers: tuple[list[OperationCost], ...]
    runs: tuple[dict[str, Any], ...]

    def of_networks(self, which: Sequence[int]) -> "BoardLatencies":
        """Some of the networks."""
        names, layers = ([column[i] for i in which] for column in (self.names, self.layers))
        return BoardLatencies(self.log_ms[:, which], self.chips, tuple(names), tuple(layers), self.runs)

    def of_runs(self, which: NDArray[Any]) -> "BoardLatencies":
        """Some of the runs."""
        runs = tuple(self.runs[i] for i in np.arange(len(self.runs))[which])
        return BoardLatencies(self.log_ms[which], self.chips[which], self.names, self.layers, runs)


def read(path: Path) -> dict[str, BoardLatencies]:
    """The published table: runs on a CPU, on a GPU, and with int8 networks on a CPU; MACs are checked."""
    data = json.loads(path.read_text(encoding="utf-8"))
    layers = {name: make() for name, make in NETWORKS.items()}
    wrong = {n: sum(x.macs for x in rows) for n, rows in layers.items() if sum(x.macs for x in rows) != data["macs"][n]}
    if wrong:
        raise SystemExit(f"these networks do not have the MACs that were counted: {wrong}")
    on_gpu = [run["cfg"].get("gpu_device", -1) >= 0 for run in data["runs"]]
    cpu = [run for run, gpu in zip(data["runs"], on_gpu, strict=True) if not gpu]
    gpu = [run for run, gpu in zip(data["runs"], on_gpu, strict=True) if gpu]
    int8 = [n for n in layers if any(f"{n}_int8" in run["res"] for run in cpu)]
    return {
        "cpu": _table(cpu, list(layers), layers, "", MIN_NETWORKS),
        "gpu": _table(gpu, list(layers), layers, "", MIN_NETWORKS),
        "int8": _table(cpu, int8, layers, "_int8", len(int8)),
    }


def _table(
    runs: list[dict[str, Any]], names: list[str], layers: dict[str, list[OperationCost]], suffix: str, least: int
) -> BoardLatencies:
    """The best time of every run: the others hold what else the board was doing."""
    kept = [run for run in runs if sum(f"{n}{suffix}" in run["res"] for n in names) >= least]
    ms = np.array([[run["res"].get(f"{n}{suffix}", [np.nan])[0] for n in names] for run in kept], dtype=np.float64)
    chips = np.array([(CHIP.search(run["device"]) or [run["device"]])[0].lower() for run in kept])
    return BoardLatencies(np.log(ms), chips, tuple(names), tuple(layers[n] for n in names), tuple(kept))


# --- who predicts -----------------------------------------------------------------------------------------------------


class Others:
    """What the other boards teach; every part is worked out when it is first asked for."""

    def __init__(self, table: BoardLatencies) -> None:
        self.table = table
        self.problem = Problem.of(table.layers, CHANNEL_RAMP)
        self.log_macs = np.log([sum(x.macs for x in rows) for rows in table.layers])
        self.prior, fits = learned(table, self.problem)
        predicted = np.array([self.problem.predict(found)[0] for found in fits])
        self.residuals = np.nan_to_num(table.log_ms - predicted)
        self.complete = table.log_ms[np.isfinite(table.log_ms).all(1)]
        ridge = 0.05**2 * np.eye(len(table.names))
        self.mean, self.covariance = self.complete.mean(0), np.cov(self.complete.T) + ridge
        self.residual_mean = np.median(self.residuals, 0)
        self.residual_covariance = np.cov(self.residuals.T) + ridge


def learned(table: BoardLatencies, problem: Problem, rounds: int = 2) -> tuple[Prior, Array]:
    """A prior from the runs of a table, and the fits that it is made of."""
    prior, fits = weak_prior(), np.empty(0)
    for left in reversed(range(rounds)):
        rows = table.log_ms[:: 2 * left + 1]  # a third of the runs is enough for a first idea
        measured = [np.flatnonzero(np.isfinite(row)) for row in rows]
        fits = np.array(
            [posterior_mode(problem.only(seen), row[seen], prior) for row, seen in zip(rows, measured, strict=True)]
        )
        prior = learn_prior(fits, CHANNEL_RAMP, f"{len(fits)} runs")
    return prior, fits


Predictor = Callable[[Others, Array, NDArray[np.intp]], Array]
"""From what others teach, log ms of a run and the networks measured in it: log ms of all networks."""


def by_macs(others: Others, log_ms: Array, seen: NDArray[np.intp]) -> Array:
    """MACs, at the median rate of the networks measured."""
    return others.log_macs + np.median(log_ms[seen] - others.log_macs[seen])


def by_roofline_alone(others: Others, log_ms: Array, seen: NDArray[np.intp]) -> Array:
    """A roofline fitted to this board; other boards teach nothing."""
    return _roofline(others.problem, weak_prior(), log_ms, seen)


def by_roofline(others: Others, log_ms: Array, seen: NDArray[np.intp]) -> Array:
    """A roofline whose prior the other boards teach."""
    return _roofline(others.problem, others.prior, log_ms, seen)


def by_roofline_and_residuals(others: Others, log_ms: Array, seen: NDArray[np.intp]) -> Array:
    """The same, and how far each network is off the roofline, given the others, on other boards."""
    typical = others.residual_mean
    predicted = _roofline(others.problem, others.prior, log_ms - typical, seen)
    rest = log_ms[seen] - typical[seen] - predicted[seen]
    within = others.residual_covariance[np.ix_(seen, seen)]
    return predicted + typical + others.residual_covariance[:, seen] @ np.linalg.solve(within, rest)


def by_nearest_board(others: Others, log_ms: Array, seen: NDArray[np.intp]) -> Array:
    """The other run whose latencies are most nearly proportional, scaled."""
    gaps = others.complete[:, seen] - log_ms[seen]
    scale = np.median(gaps, axis=1, keepdims=True)
    nearest = int(np.argmin(np.abs(gaps - scale).mean(1)))
    return others.complete[nearest] - scale[nearest]


def by_factors(others: Others, log_ms: Array, seen: NDArray[np.intp]) -> Array:
    """A Gaussian over the log latencies of all networks, given those measured: a matrix factorised with all factors."""
    within = others.covariance[np.ix_(seen, seen)]
    return others.mean + others.covariance[:, seen] @ np.linalg.solve(within, log_ms[seen] - others.mean[seen])


def _roofline(problem: Problem, prior: Prior, log_ms: Array, seen: NDArray[np.intp]) -> Array:
    return problem.predict(posterior_mode(problem.only(seen), log_ms[seen], prior))[0]


ANY_NETWORK: dict[str, Predictor] = {
    "macs": by_macs,
    "roofline alone": by_roofline_alone,
    "roofline": by_roofline,
}
"""These predict networks that were never measured anywhere."""

KNOWN_NETWORK: dict[str, Predictor] = {
    **ANY_NETWORK,
    "roofline and residuals": by_roofline_and_residuals,
    "nearest board": by_nearest_board,
    "factors": by_factors,
}
"""The further ones need the network's latency on other boards."""


# --- protocols --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prediction:
    """One latency that was predicted without having been seen."""

    protocol: str
    method: str
    chip: str
    network: str
    ms: float
    predicted_ms: float


def folds(items: Sequence[Any], count: int, seed: int) -> list[set[Any]]:
    """Items in so many parts, at random."""
    order = np.random.default_rng(seed).permutation(len(items))
    return [{items[i] for i in order[start::count]} for start in range(min(count, len(items)))]


def new_networks(table: BoardLatencies, board_folds: int, network_folds: int, seed: int) -> Iterator[Prediction]:
    """Networks that were measured on no board at all: a part of the networks is hidden everywhere."""
    for hidden in folds(range(len(table.names)), network_folds, seed):
        shown = [i for i in range(len(table.names)) if i not in hidden]
        for test, train in _boards(table, board_folds, seed):
            others = Others(train.of_networks(shown))
            whole = _with_problem(others, table)
            for row, chip in zip(test.log_ms, test.chips, strict=True):
                yield from _predict("new network", ANY_NETWORK, whole, row, np.array(shown), str(chip), table.names)


def known_networks(
    table: BoardLatencies, board_folds: int, network_folds: int, anchor_counts: Sequence[int], seed: int
) -> Iterator[Prediction]:
    """Networks that other boards were measured with: a part of the networks is hidden on the board.

    With anchors, few networks are measured on the board: those that, on other boards, leave the least open.
    """
    parts = folds(range(len(table.names)), network_folds, seed)
    for test, train in _boards(table, board_folds, seed):
        others = Others(train)
        for hidden in parts:
            shown = np.array([i for i in range(len(table.names)) if i not in hidden])
            for row, chip in zip(test.log_ms, test.chips, strict=True):
                yield from _predict("known network", KNOWN_NETWORK, others, row, shown, str(chip), table.names)
        for count in anchor_counts:
            shown = np.array(anchors(others.covariance, count))
            for row, chip in zip(test.log_ms, test.chips, strict=True):
                if np.isfinite(row[shown]).all():
                    name = f"{count} anchors"
                    yield from _predict(name, KNOWN_NETWORK, others, row, shown, str(chip), table.names)


def anchors(covariance: Array, count: int) -> list[int]:
    """Greedily, the networks given which the least variance is left."""
    chosen: list[int] = []
    for _ in range(count):
        left = [i for i in range(len(covariance)) if i not in chosen]
        chosen.append(min(left, key=lambda i: _left_open(covariance, [*chosen, i])))
    return chosen


def _left_open(covariance: Array, seen: list[int]) -> float:
    within, across = covariance[np.ix_(seen, seen)], covariance[:, seen]
    return float(np.trace(covariance - across @ np.linalg.solve(within, across.T)))


def _boards(table: BoardLatencies, count: int, seed: int) -> Iterator[tuple[BoardLatencies, BoardLatencies]]:
    for part in folds(sorted(set(table.chips)), count, seed):
        held_out = np.isin(table.chips, sorted(part))
        yield table.of_runs(held_out), table.of_runs(~held_out)


def _with_problem(others: Others, table: BoardLatencies) -> Others:
    """What the others teach, for predicting all networks of a table."""
    others.problem = Problem.of(table.layers, CHANNEL_RAMP)
    others.log_macs = np.log([sum(x.macs for x in rows) for rows in table.layers])
    return others


def _predict(
    protocol: str,
    methods: dict[str, Predictor],
    others: Others,
    log_ms: Array,
    shown: NDArray[np.intp],
    chip: str,
    names: Sequence[str],
) -> Iterator[Prediction]:
    seen = shown[np.isfinite(log_ms[shown])]
    hidden = [i for i in range(len(names)) if i not in set(shown.tolist()) and np.isfinite(log_ms[i])]
    for method, predict in methods.items():
        found = predict(others, log_ms, seen)
        for i in hidden:
            yield Prediction(protocol, method, chip, names[i], float(np.exp(log_ms[i])), float(np.exp(found[i])))


def errors(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """Median and p90 of the relative error, per protocol and method."""
    groups: dict[tuple[str, str], list[Prediction]] = defaultdict(list)
    for p in predictions:
        groups[p.protocol, p.method].append(p)
    return [{"protocol": k[0], "method": k[1], **summary(v)} for k, v in groups.items()]


def summary(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Relative errors in percent of the measured latency."""
    off = 100 * np.abs([p.predicted_ms / p.ms - 1 for p in predictions])
    return {
        "median_percent": round(float(np.median(off)), 2),
        "p90_percent": round(float(np.quantile(off, 0.9)), 2),
        "median_interval_percent": _interval(off, np.array([p.chip for p in predictions])),
        "within_10_percent": round(float(100 * np.mean(off <= 10)), 1),
        "count": len(predictions),
        "boards": len({p.chip for p in predictions}),
    }


def _interval(off: Array, chips: NDArray[np.str_], resamples: int = 500) -> tuple[float, float]:
    """95% bootstrap interval of the median; boards are drawn, for the errors on one are not independent."""
    rng = np.random.default_rng(0)
    groups = [off[chips == chip] for chip in np.unique(chips)]
    medians = [
        float(np.median(np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])))
        for _ in range(resamples)
    ]
    low, high = np.quantile(medians, (0.025, 0.975))
    return round(float(low), 2), round(float(high), 2)
