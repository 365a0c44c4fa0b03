"""Every causal method of the library against the truth in trained networks, at equal budgets of forward passes.

Truth is measured by interventions on audit images that no estimator sees. Estimators get as many forward passes of one
image as `budget` times the number of units. Hypotheses H1 to H7 are answered in the record, with numbers.
"""

import argparse
import itertools
import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import whyprune as wp
from benchmarks.causal_tools_answers import Rows, answers
from benchmarks.causal_tools_metrics import BOTTOM, Truth, judged, lowest, pruned_accuracy
from benchmarks.causal_tools_models import discovery_rows, observational_rows, refuter_rows
from benchmarks.causal_tools_networks import Case, case
from benchmarks.common import RESULTS, Stopwatch, arguments, write_record
from whyprune.causal.exact import exact_effects
from whyprune.errors import WhypruneError
from whyprune.scoring.estimate import estimate
from whyprune.scoring.registry import SCORERS
from whyprune.structure.state import State

Job = Callable[[Case, argparse.Namespace], Rows]
PARTS = ("rows", "observational", "discovery", "refuters")
NETWORKS = ("digits-cnn", "digits-vgg", "resnet20")
ROUNDS = 8


def estimator_rows(one: Case, truth: Truth, options: argparse.Namespace) -> Rows:
    """Every registered estimator at every budget, and every criterion once."""
    rows = []
    wanted = options.methods or [name for name in SCORERS if name != "curves"]
    units = len(one.network.units)
    for method in wanted:
        budgets = [None] if SCORERS(method).facts.kind == "criterion" else options.budgets
        for budget in budgets:
            about = {"network": one.name, "seed": one.seed, "outcome": truth.outcome, "method": method}
            about["budget"] = budget
            watch = Stopwatch()
            try:
                found = estimate(
                    one.network,
                    [one.pool],
                    method=method,
                    outcome=one.outcome(truth.outcome),
                    forward_passes=None if budget is None else float(budget * units),
                    seed=one.seed,
                )
            except Exception as error:  # noqa: BLE001  one method that fails must not end the others
                kind = type(error).__name__
                rows.append(about | {"skipped": f"{kind}: {error}"[:300]})
                print(rows[-1] if isinstance(error, WhypruneError) else traceback.format_exc(), flush=True)
                continue
            row = about | {"estimand": found.estimand, "approximate": found.approximate, "seconds": watch.seconds}
            spent = found.forward_passes if np.isfinite(found.forward_passes) else None
            row |= {"forwards": spent, "forwards_per_unit": None if spent is None else spent / units}
            row |= judged(found, truth)
            chosen = lowest(one, found.mean, BOTTOM)
            recovered = options.recover and (budget is None or budget == max(options.budgets))
            row |= {f"pruned_{k}_percent": v for k, v in pruned_accuracy(one, chosen, recovered=recovered).items()}
            rows.append(row)
            print(_short(row), flush=True)
    return rows


def reference_rows(one: Case, truth: Truth, options: argparse.Namespace) -> Rows:
    """Pruning by the true single effects in one shot, and by conditional effects in rounds; what both promised."""
    about = {"network": one.name, "seed": one.seed, "outcome": truth.outcome, "budget": None, "estimand": ""}
    names = [u.name for u in truth.worlds.units]
    single, weakest = truth.single.by_unit(), lowest(one, truth.single.mean, BOTTOM)
    rows = []
    for method, (chosen, predicted) in {
        "truth, one shot": (weakest, sum(single[name] for name in weakest)),
        f"conditional, {ROUNDS} rounds": in_rounds(one, truth.outcome),
    }.items():
        measured = float(truth.worlds.joint(np.isin(names, chosen)).mean())
        row = about | {"method": method, "predicted_joint": predicted, "measured_joint": measured}
        found = pruned_accuracy(one, chosen, recovered=options.recover)
        rows.append(row | {f"pruned_{k}_percent": v for k, v in found.items()})
        print(_short(rows[-1]), flush=True)
    return rows


def in_rounds(one: Case, outcome: str, images: int = 64) -> tuple[list[str], float]:
    """As many units as one shot takes, an eighth at a time, conditional on what is gone; the sum of their effects."""
    state, data = State.of(one.network), [one.pool[slice(0, images)]]
    network = state.network
    names = [u.name for u in network.units]
    gone: list[str] = []
    predicted = 0.0
    total = len(lowest(one, np.zeros(len(names)), BOTTOM))
    while len(gone) < total:
        found = exact_effects(wp.remove(state, gone), data, outcome=one.outcome(outcome)).by_unit()
        scores = np.array([found.get(name, -np.inf) for name in names])  # what is gone stays gone
        step = min(total, len(gone) + -(-total // ROUNDS))
        before, gone = gone, lowest(one, scores, (step + 0.5) / len(names))
        predicted += sum(found[name] for name in set(gone) - set(before))
    return gone, predicted


def run(options: argparse.Namespace) -> None:
    """Runs what is asked for and writes the record after every part."""
    torch.set_num_threads(options.threads)
    if options.quick:
        options.networks, options.seeds, options.budgets, options.recover = ["digits-cnn"], 1, [4], True
    jobs: dict[str, Job] = {"rows": compared_rows}
    if options.models:
        jobs |= {"observational": observational_rows, "discovery": discovery_rows, "refuters": refuter_rows}
    found = _kept(options)
    for name, seed in itertools.product(options.networks, range(options.seeds)):
        left = [part for part in jobs if not _has(found["finished"], name, seed, part)]
        if not left:
            continue
        one = case(name, seed, options.workspace)
        if not any((n["network"], n["seed"]) == (name, seed) for n in found["networks"]):
            found["networks"].append(_about(one))
        print(f"{name} seed {seed}: {len(one.network.units)} units", flush=True)
        for part in left:
            watch = Stopwatch()
            found[part] += jobs[part](one, options)
            found["finished"].append({"network": name, "seed": seed, "part": part, "seconds": watch.seconds})
            print(found["finished"][-1], flush=True)
            _write(options, found)
    _write(options, found)


def compared_rows(one: Case, options: argparse.Namespace) -> Rows:
    """Everything that is held against one truth."""
    truth = Truth(one, "logit-shift", 60 if options.quick else options.depth, 20 if options.quick else 100)
    return reference_rows(one, truth, options) + estimator_rows(one, truth, options)


def _kept(options: argparse.Namespace) -> dict[str, Rows]:
    """With --add: what the record that is there says of parts that were measured to the end."""
    path = options.output or RESULTS / "causal_tools.json"
    record = json.loads(path.read_text()) if options.add and path.exists() else {}
    finished = record.get("finished", [])

    def kept(part: str) -> Rows:
        return [r for r in record.get(part, []) if _has(finished, r["network"], r["seed"], part)]

    return {part: kept(part) for part in PARTS} | {"finished": finished, "networks": record.get("networks", [])}


def _has(finished: Rows, network: str, seed: int, part: str) -> bool:
    return any((f["network"], f["seed"], f["part"]) == (network, seed, part) for f in finished)


def _write(options: argparse.Namespace, found: dict[str, Rows]) -> None:
    """The record so far: a run that is cut short keeps what it has."""
    more = {name: rows for name, rows in found.items() if name != "rows"}
    said = answers(found["rows"], more)
    write_record("causal_tools", options, said["headline"], found["rows"], **more, hypotheses=said["hypotheses"])


def pruned_accuracy_of_dense(one: Case) -> float:
    """Audit accuracy of the untouched network, in percent."""
    with torch.no_grad():
        right = one.network.model(one.audit.args[0]).argmax(dim=1) == one.audit.labels
    return 100 * float(right.float().mean())


def _about(one: Case) -> dict[str, Any]:
    return {
        "network": one.name,
        "seed": one.seed,
        "units": len(one.network.units),
        "pool_images": len(one.pool),
        "audit_images": len(one.audit),
        "dense_top1_percent": pruned_accuracy_of_dense(one),
    }


def _short(row: dict[str, Any]) -> str:
    return " ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items() if v is not None)


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--budgets", nargs="+", type=int, default=[1, 4, 16, 64], help="forward passes for each unit")
    parser.add_argument("--methods", nargs="+", help="instead of all that are registered")
    parser.add_argument("--depth", type=float, default=300, help="forward passes for each unit behind a context truth")
    parser.add_argument("--add", action="store_true", help="keep the parts that the record has, and go on")
    parser.add_argument("--workspace", type=Path, default=Path("build/networks"), help="keeps trained ResNet-20s")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--no-models", dest="models", action="store_false", help="leave fitted models and discovery out"
    )
    parser.add_argument("--no-recover", dest="recover", action="store_false", help="leave fine-tuning out")
    run(parser.parse_args())
