"""Accuracy of ResNet-56 on CIFAR-10 right after pruning: 1,024 unlabelled training images, no gradient steps.

Every method gets the same images and the same MACs. Criteria prune the block-internal channels, as is usual for this
network, with uniform and (but random) with global widths; each is measured plain, with batch norm re-estimated, and
with this library's repair. `causal` chooses among all channels, the residual stream included.
"""

import argparse
from typing import Any

import numpy as np
import torch

import whyprune as wp
from benchmarks.common import (
    RESULTS,
    Stopwatch,
    arguments,
    calibration,
    cifar10,
    fingerprint,
    merged,
    test_images,
    trained,
    write_record,
)
from whyprune.data import Augmentation, Loader
from whyprune.data.calibration import calibrate
from whyprune.devices import accuracy

CRITERIA = ("random", "magnitude-l2", "taylor")
ALLOCATIONS = ("uniform", "global")
STREAM = ("conv1", "layer2.0.conv2", "layer3.0.conv2")
VIEWS = 4
KEY = ("fewer_macs", "method", "allocation", "seed")


def criterion_rows(
    network: wp.Network, loader: Loader, test: Loader, budget: wp.Budget, seed: int, criteria: list[str]
) -> list[dict[str, Any]]:
    """Accuracies of every criterion, plain, with batch-norm re-estimation and with repair."""
    rows = []
    images = calibrate(loader, 1, Augmentation(), seed)
    views = images.views(range(VIEWS))
    for criterion in criteria:
        effects = wp.estimate(network, images.planning, method=criterion, seed=seed)
        for allocation in ("uniform",) if criterion == "random" else ALLOCATIONS:
            plan = wp.allocate(network, effects, budget, allocation=allocation)
            plain = wp.remove(network, plan.units)
            tuned = wp.reestimate_batch_norm(plain, images.planning)
            repaired = wp.repair(wp.State(network, plain, plan.units), views, seed=seed).model
            rows.append(
                {
                    "method": criterion,
                    "allocation": allocation,
                    "seed": seed,
                    "macs_ratio": plan.macs / network.cost().macs,
                    "params_ratio": plan.params / network.cost().params,
                    "plain_top1_percent": accuracy(plain, test, progress=False).top1_percent,
                    "batch_norm_top1_percent": accuracy(tuned, test, progress=False).top1_percent,
                    "repaired_top1_percent": accuracy(repaired, test, progress=False).top1_percent,
                }
            )
            print(rows[-1], flush=True)
    return rows


def causal_row(
    model: torch.nn.Module, loader: Loader, test: Loader, budget: wp.Budget, seed: int, effect_images: int
) -> dict[str, Any]:
    """Accuracies of the causal method."""
    first, _ = next(iter(loader))
    watch = Stopwatch()
    result = wp.prune(
        model,
        loader,
        budget=budget,
        example_inputs=first[:2],
        augment=Augmentation(),
        test=test,
        seed=seed,
        settings=wp.Settings(views=VIEWS, effect_images=effect_images, latency=False),
        progress=False,
    )
    measured = result.measurements
    row = {
        "method": "causal",
        "allocation": "curves",
        "seed": seed,
        "macs_ratio": measured.pruned.macs / measured.dense.macs,
        "params_ratio": measured.pruned.params / measured.dense.params,
        "plain_top1_percent": measured.accuracy_after.removal,
        "batch_norm_top1_percent": None,
        "repaired_top1_percent": measured.accuracy_after.repair,
        "joint_effect": None if measured.joint_effect is None else measured.joint_effect.model_dump(),
        "verify_max_abs_difference": measured.verify.max_abs_difference,
        "seconds": watch.seconds,
        "timings_s": measured.timings_s,
    }
    print(row, flush=True)
    return row


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean accuracy over seeds per budget and method, with repair."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        name = f"{row['method']}_{row['allocation']}_{row['fewer_macs']:g}x_repaired_top1_percent"
        groups.setdefault(name, []).append(row["repaired_top1_percent"])
    return {name: float(np.mean(values)) for name, values in sorted(groups.items())}


def run(options: argparse.Namespace) -> None:
    """Runs what is asked for and adds it to the record."""
    source = cifar10()
    model, normalization = trained("resnet20" if options.quick else "resnet56")
    images, tested = (256, 1000) if options.quick else (1024, None)
    seeds = options.only_seeds or list(range(1 if options.quick else options.seeds))
    ratios = [2.0] if options.quick else options.ratios
    test = test_images(source, normalization, tested)
    dense = accuracy(model, test, progress=False).top1_percent
    path = options.output or RESULTS / f"one_shot_resnet56{'-quick' if options.quick else ''}.json"
    for seed in seeds:
        loader = calibration(source, normalization, images, seed)
        for ratio in ratios:
            budget = wp.Budget(macs=1 / ratio)
            new: list[dict[str, Any]] = []
            if "causal" in options.methods:
                new.append(causal_row(model, loader, test, budget, seed, 16))
            first, _ = next(iter(loader))
            criteria = [c for c in CRITERIA if c in options.methods]
            if criteria and seed < options.baseline_seeds:
                inner = wp.trace(model, first[:2]).ignoring(STREAM)
                new += criterion_rows(inner, loader, test, budget, seed, criteria)
            rows = merged(path, [{"fewer_macs": ratio, **row} for row in new], KEY)
            headline = {"dense_top1_percent": dense, **summary(rows)}
            about = {
                "calibration_images": images,
                "test_images": test.images,
                "data_fingerprint": fingerprint(source),
            }
            write_record("one_shot_resnet56", options, headline, rows, **about)


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--methods", nargs="+", default=["causal", *CRITERIA], help="rows to run; others are kept")
    parser.add_argument("--ratios", nargs="+", type=float, default=[2.0, 3.0], help="how many times fewer MACs")
    parser.add_argument("--only-seeds", nargs="+", type=int, help="instead of all seeds")
    parser.add_argument("--baseline-seeds", type=int, default=1, help="on how many seeds the criteria run")
    run(parser.parse_args())
