"""Accuracy of ResNet-56 on CIFAR-10 right after pruning: 1,024 unlabelled training images, no gradient steps.

Every method gets the same images and the same MACs. Criteria prune the block-internal channels, as is usual for this
network, with uniform and with global widths; each is measured plain, with batch-norm re-estimation, and with this
library's repair. `causal` chooses among all channels, the residual stream included.
"""

import argparse
from typing import Any

import numpy as np
import torch

import whyprune as wp
from benchmarks.common import Stopwatch, arguments, calibration, cifar10, fingerprint, test_images, trained, write_record
from whyprune.calibration import calibrate
from whyprune.data import Augmentation, Loader
from whyprune.devices import accuracy

CRITERIA = ("random", "magnitude-l2", "taylor")
ALLOCATIONS = ("uniform", "global")
STREAM = ("conv1", "layer2.0.conv2", "layer3.0.conv2")
VIEWS = 4


def criterion_rows(
    network: wp.Network, loader: Loader, test: Loader, budget: wp.Budget, seed: int, allocations: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Accuracies of every criterion, plain, with batch-norm re-estimation and with repair."""
    rows = []
    images = calibrate(loader, 1, Augmentation(), seed)
    views = images.views(range(VIEWS))
    for criterion in CRITERIA:
        effects = wp.estimate(network, images.fit, method=criterion, seed=seed)
        for allocation in allocations:
            plan = wp.allocate(network, effects, budget, allocation=allocation)
            plain = wp.remove(network, plan.units)
            tuned = wp.reestimate_batch_norm(plain, images.fit)
            repaired = wp.repair(network, plain, plan.units, views, seed=seed)
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


def summary(rows: list[dict[str, Any]], ratios: list[float]) -> dict[str, float]:
    """Mean accuracy over seeds per method and budget."""
    headline = {}
    for ratio in ratios:
        for key in sorted({(r["method"], r["allocation"]) for r in rows}):
            own = [r for r in rows if (r["method"], r["allocation"]) == key and r["fewer_macs"] == ratio]
            if own:
                name = f"{key[0]}_{key[1]}_{ratio:g}x_repaired_top1_percent"
                headline[name] = float(np.mean([r["repaired_top1_percent"] for r in own]))
    return headline


def run(options: argparse.Namespace) -> None:
    """Runs everything and writes the record."""
    source = cifar10()
    model, normalization = trained("resnet20" if options.quick else "resnet56")
    images, tested, seeds = (256, 1000, 1) if options.quick else (1024, None, options.seeds)
    ratios = [2.0] if options.quick else [2.0, 3.0]
    test = test_images(source, normalization, tested)
    dense = accuracy(model, test, progress=False).top1_percent
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        loader = calibration(source, normalization, images, seed)
        first, _ = next(iter(loader))
        network = wp.trace(model, first[:2])
        inner = network.ignoring(STREAM)
        for ratio in ratios:
            budget = wp.Budget(macs=1 / ratio)
            new = [causal_row(model, loader, test, budget, seed, 16)]
            if seed == 0 or options.all_baselines:
                new += criterion_rows(inner, loader, test, budget, seed, ALLOCATIONS)
            rows += [{"fewer_macs": ratio, **row} for row in new]
            write_record(
                "one_shot_resnet56",
                options,
                {"dense_top1_percent": dense, **summary(rows, ratios)},
                rows,
                data_fingerprint=fingerprint(source),
                calibration_images=images,
                test_images=test.images,
                seeds=list(range(seed + 1)),
            )


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--all-baselines", action="store_true", help="criteria on every seed, not on the first alone")
    run(parser.parse_args())
