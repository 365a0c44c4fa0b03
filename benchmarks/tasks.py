"""Networks that are not image classifiers: segmentation, super-resolution, audio, two heads; each trained here.

Every method prunes the same trained networks to the same MACs from the same unlabelled samples, without a gradient
step, and is judged on the same test samples, which are used for nothing else: `causal`, `magnitude-l2` and `random` by
`whyprune.prune` with its default settings (all three are repaired in closed form), and Torch-Pruning with its batch
norms re-estimated, once with the same share of every layer and once with norms compared over all layers. Seeds are of
training, calibration and method alike; differences are paired over them.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import nn

import whyprune as wp
from benchmarks.common import RESULTS, Stopwatch, arguments, command_of, commit, merged, write_record
from benchmarks.tasks_baseline import installed, macs_of, torch_pruning
from benchmarks.tasks_data import Split, drawn
from benchmarks.tasks_networks import TASKS, Metrics, Task, judged, train
from whyprune.devices import machine_state

CAUSAL = "causal"
OURS = (CAUSAL, "magnitude-l2", "random")
THEIRS = {"torch-pruning": False, "torch-pruning-global": True}
RATIOS = (1.5, 2.0)
CALIBRATION, TEST, BATCH = 1_024, 2_000, 64
QUICK_CALIBRATION, QUICK_TEST = 128, 400
OTHERS = 1_000
"""Added to the seed for calibration samples, so that none is a training sample."""
KEY = ("task", "fewer_macs", "method", "seed")


def ours(model: nn.Module, data: Split, method: str, ratio: float, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """What `whyprune.prune` makes of a network, and what it measured; timing and refuting change no network."""
    result = wp.prune(
        model,
        list(data.inputs.split(BATCH)),
        budget=wp.Budget(macs=1 / ratio),
        example_inputs=data.inputs[:2],
        method=method,
        settings=wp.Settings(latency=False, refute=False),
        seed=seed,
        progress=False,
    )
    found = result.measurements
    return result.model, {
        "joint_effect": None if found.joint_effect is None else found.joint_effect.model_dump(),
        "verdict": None if found.verdict is None else found.verdict.model_dump(),
        "verify_max_abs_difference": found.verify.max_abs_difference,
        "notes": found.notes,
    }


def pruned(
    model: nn.Module, data: Split, method: str, ratio: float, seed: int
) -> tuple[nn.Module | None, dict[str, Any]]:
    """A network of so many times fewer MACs by a method's name; None, and why, where there is none."""
    try:
        if method in THEIRS:
            found = torch_pruning(model, data.inputs[:2], 1 / ratio, over_all=THEIRS[method])
            return wp.reestimate_batch_norm(found, data.inputs.split(BATCH)), {}
        return ours(model, data, method, ratio, seed)
    except Exception as error:  # noqa: BLE001 - any error is an outcome of the table
        return None, {"error": f"{type(error).__name__}: {error}"[:300]}


def kept_percent(task: Task, metrics: Metrics, dense: Metrics, test: Split) -> float:
    """How much is left of what the dense network has over one answer for all samples, the mean over metrics."""
    trivial = task.trivial(test)
    return 100 * float(np.mean([(metrics[m] - trivial[m]) / (dense[m] - trivial[m]) for m in metrics]))


def rows_of(name: str, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Trains a task's network and measures every method on it."""
    task, quick = TASKS[name], options.quick
    watch = Stopwatch()
    model = train(task, seed, quick)
    seconds = watch.seconds
    data = drawn(task.maker, QUICK_CALIBRATION if quick else CALIBRATION, OTHERS + seed)
    test = drawn(task.maker, QUICK_TEST if quick else TEST, 0, test=True)
    dense = judged(task, model, test)
    about = {
        "task": name,
        "seed": seed,
        "git_commit": commit(),
        "command": command_of("tasks"),
    }
    about |= {"cpu": machine_state().get("cpu"), "dense": dense, "trivial": task.trivial(test), "train_s": seconds}
    about |= {"usual": {} if task.usual is None else {task.usual[0]: task.usual[1](test)}}
    rows = []
    for ratio in options.ratios:
        for method in options.methods:
            watch = Stopwatch()
            found, said = pruned(model, data, method, ratio, seed)
            row = {**about, "fewer_macs": ratio, "method": method, "seconds": watch.seconds, **said}
            if found is not None:
                metrics = judged(task, found, test)
                row |= {"metrics": metrics, "kept_percent": kept_percent(task, metrics, dense, test)}
                row["macs_ratio"] = macs_of(found, data.inputs[:2]) / macs_of(model, data.inputs[:2])
            rows.append(row)
            print(name, seed, f"{ratio:g}x", method, row.get("metrics", said), f"{row['seconds']:.1f} s", flush=True)
    return rows


def gap(rows: Sequence[dict[str, Any]], task: str, ratio: float, other: str) -> tuple[float, float] | None:
    """Causal less another method in points of `kept_percent`: the mean over seeds, and half its 95% interval."""
    found = {
        (r["method"], r["seed"]): r["kept_percent"]
        for r in rows
        if (r["task"], r["fewer_macs"]) == (task, ratio) and "kept_percent" in r
    }
    gaps = [
        v - found[other, seed] for (method, seed), v in found.items() if method == CAUSAL and (other, seed) in found
    ]
    if not gaps:
        return None
    half = float(stats.t.ppf(0.975, len(gaps) - 1) * stats.sem(gaps)) if len(gaps) > 1 else float("nan")
    return float(np.mean(gaps)), half


def headline(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many tasks there are, on how many causal is ahead of all others at all ratios, and where it is worst."""
    tasks, worst = {r["task"] for r in rows}, []
    ahead = 0
    for task in tasks:
        others = sorted({(r["fewer_macs"], r["method"]) for r in rows if r["task"] == task and r["method"] != CAUSAL})
        gaps = [found[0] for ratio, other in others if (found := gap(rows, task, ratio, other)) is not None]
        failed = any("error" in r for r in rows if (r["task"], r["method"]) == (task, CAUSAL))
        ahead += bool(gaps) and min(gaps) > 0 and not failed
        worst += gaps
    return {
        "tasks": len(tasks),
        "causal_ahead": ahead,
        "worst_gap_points": min(worst) if worst else None,
        "seeds": len({r["seed"] for r in rows}),
    }


def run(options: argparse.Namespace) -> None:
    """Runs what is asked for and adds it to the record, network by network."""
    if not options.quick and commit().endswith("-dirty"):
        sys.exit("files were changed since the last commit: a record has to name the code it is of")
    torch.set_num_threads(options.threads)
    if not installed():
        options.methods = [m for m in options.methods if m not in THEIRS]
        print("Torch-Pruning is not installed: its rows are left out", flush=True)
    path = options.output or RESULTS / f"tasks{'-quick' if options.quick else ''}.json"
    seeds = options.only_seeds or list(range(1 if options.quick else options.seeds))
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        for name in options.tasks:
            rows = merged(path, rows_of(name, seed, options), KEY)
            about = {"torch_pruning_version": installed(), "calibration_samples": CALIBRATION, "test_samples": TEST}
            if options.quick:
                about |= {"calibration_samples": QUICK_CALIBRATION, "test_samples": QUICK_TEST}
            write_record("tasks", options, headline(rows), rows, **about)


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS), help="which to run")
    parser.add_argument("--methods", nargs="+", default=[*OURS, *THEIRS], help="rows to run; others are kept")
    parser.add_argument("--ratios", nargs="+", type=float, default=list(RATIOS), help="how many times fewer MACs")
    parser.add_argument("--only-seeds", nargs="+", type=int, help="instead of all seeds")
    parser.add_argument("--threads", type=int, default=1)
    run(parser.parse_args())
