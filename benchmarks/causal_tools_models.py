"""The parts of `causal_tools` about fitted models: observational against masked, discovery, and DoWhy's refuters."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.causal_tools_metrics import rank_correlation, within
from benchmarks.causal_tools_networks import Case
from benchmarks.common import Stopwatch, at_most
from whyprune.causal.exact import exact_effects
from whyprune.causal.fitted.designs import design
from whyprune.causal.fitted.discovered import Search, network_graph
from whyprune.causal.fitted.discovery import ALGORITHMS
from whyprune.causal.fitted.dowhy_study import dowhy_study
from whyprune.causal.fitted.graphical import graphical_model
from whyprune.causal.fitted.scm import Equations, structural_influence
from whyprune.errors import WhypruneError
from whyprune.interventions.worlds import Worlds
from whyprune.scoring.contract import Question

OUTCOME = "margin"
BUDGET = 16
GROUPED = 14
LIMIT_S = 120.0
REFUTERS = ("placebo", "random common cause", "data subset", "bootstrap")


def observational_rows(one: Case, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The same model on runs as they are and on masked runs; and flat adjustment, which is DoWhy's to 1e-6."""
    truth = exact_effects(one.network, [one.audit], outcome=OUTCOME)
    question = Question(
        outcome=OUTCOME, forward_passes=float((4 if options.quick else BUDGET) * len(one.network.units))
    )
    jobs: dict[tuple[str, str], Callable[[], np.ndarray]] = {}
    for regime in ("observational", "masked"):
        for mechanism in ("linear", "trees"):
            if mechanism == "linear" or not options.quick:  # trees for every unit take minutes
                jobs[f"scm {mechanism}", regime] = lambda m=mechanism, r=regime: (
                    structural_influence(one.network, [one.pool], question, Equations(m, r)).mean
                )
            jobs[f"gcm {mechanism}", regime] = lambda m=mechanism, r=regime: _graphical(
                one, question, m, r, most=40 if options.quick else 100
            )
    for adjust in ("none", "same", "before"):
        jobs[f"flat adjustment: {adjust}", "observational"] = lambda a=adjust: _adjusted(one, question, a)
    rows = []
    for (model, regime), job in jobs.items():
        with _row(rows, one, model=model, regime=regime, outcome=OUTCOME) as row:
            found = job()
            large = np.abs(truth.mean) > 2 * truth.standard_error
            row["spearman"] = rank_correlation(found, truth.mean)
            row["spearman_within"] = within(truth.groups, found, truth.mean)
            row["sign_accuracy"] = float((np.sign(found) == np.sign(truth.mean))[large].mean())
            row["mae_over_mean_effect"] = float(np.abs(found - truth.mean).mean() / np.abs(truth.mean).mean())
    return rows


def _graphical(one: Case, question: Question, mechanism: Any, regime: Any, most: int) -> np.ndarray:
    model = graphical_model(one.network, [one.pool], question, mechanism=mechanism, regime=regime, most=most)
    return model.unit_effects(range(len(one.network.units)), None).mean(axis=1)


def _adjusted(one: Case, question: Question, adjust: str) -> np.ndarray:
    """What DoWhy's linear regression says of do(summary := 0), for every unit."""
    table = design(Worlds(one.network, [one.pool], outcome=OUTCOME), question, "observational")
    found = []
    for column, mean in enumerate(table.values.mean(axis=0)):
        tier = table.tier - table.tier[column]
        causes = {"none": tier > 10**6, "same": tier == 0, "before": tier == -1}[adjust].copy()
        causes[column] = False
        x = np.column_stack([np.ones(len(table.outcome)), table.values[:, column], table.values[:, causes]])
        found.append(-mean * np.linalg.lstsq(x, table.outcome, rcond=None)[0][1])
    return np.array(found)


def discovery_rows(one: Case, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every algorithm on blocks of units, on both regimes, with and without the order of sites."""
    rows: list[dict[str, Any]] = []
    for method in ALGORITHMS:
        for regime in ("observational", "masked"):
            for tiers in (False, True):
                with _row(rows, one, algorithm=method, regime=regime, tiers=tiers) as row:
                    how = Search(method, regime, tiers, rows=600 if options.quick else 2000, images=400, most=GROUPED)
                    with at_most(LIMIT_S):  # on dense graphs GES walks every path, and may never end
                        found = network_graph(one.network, [one.pool], Question(seed=one.seed), how)
                    row["variables"] = len(found.names)
                    for name in ("precision", "recall", "chance", "direction_accuracy"):
                        value = getattr(found, name)
                        row[name] = value if np.isfinite(value) else None
    return rows


def refuter_rows(one: Case, options: argparse.Namespace) -> list[dict[str, Any]]:
    """DoWhy's refuters on estimates of which is known whether they are wrong: more than two errors from the truth."""
    question = Question(outcome=OUTCOME, seed=one.seed)
    count = 3 if options.quick else 16
    exact = exact_effects(one.network, [one.audit], outcome=OUTCOME)
    units = np.random.default_rng(one.seed).choice(len(exact.units), count, replace=False)
    seen = design(Worlds(one.network, [one.pool], outcome=OUTCOME), question, "observational")
    masks = design(Worlds(one.network, [one.pool], outcome=OUTCOME), question, "masks", rows=2000)
    rows: list[dict[str, Any]] = []
    for regime, table in (("observational", seen), ("masks", masks)):
        for unit in units.tolist():
            name = exact.units[unit]
            with _row(rows, one, regime=regime, unit=name) as row:
                study = dowhy_study(
                    table, name, adjust="none" if regime == "masks" else "same", refuters=REFUTERS, seed=one.seed
                )
                spread = float(np.hypot(study.standard_error, exact.standard_error[unit]))
                row["estimate"], row["truth"] = study.estimate, float(exact.mean[unit])
                row["wrong"] = bool(abs(study.estimate - exact.mean[unit]) > 2 * spread)
                row["wrong_sign"] = bool(np.sign(study.estimate) != np.sign(exact.mean[unit]))
                row["p"] = {r.name: r.p_value for r in study.refutations}
                row["passed"] = {r.name: r.passed for r in study.refutations}
    return rows


@contextmanager
def _row(rows: list[dict[str, Any]], one: Case, **about: Any) -> Iterator[dict[str, Any]]:
    """A row that is kept even where its numbers could not be had."""
    row: dict[str, Any] = {"network": one.name, "seed": one.seed, **about}
    watch = Stopwatch()
    try:
        yield row
    except (WhypruneError, TimeoutError) as error:
        row["skipped"] = str(error)[:300]
    row["seconds"] = watch.seconds
    rows.append(row)
    print(row, flush=True)
