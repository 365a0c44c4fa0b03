"""What is left of the choice of widths and channels once a pruned network has been fine-tuned for an epoch.

As `causal_pruning`: ResNet-56 on CIFAR-10, the channels inside blocks, 1,024 unlabelled training images, the same
closed-form repair. Then every network gets the same pass of fine-tuning, in the configuration that
`recover_resnet56` chose on held-out training images, as its record says: distilled from the dense network on mixed
images, following its channels. The training images, their order and augmentation are the same for all, nothing is
chosen by the result, and the last step is kept. Each network, repaired and recovered, reads the test images once.
Differences are paired over calibration seeds; the seed draws the training images as well.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

import whyprune as wp
from benchmarks.causal_pruning import KEY, STREAM, Seed, paired
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
from whyprune.data import Augmentation, DataSource, Loader, Normalization
from whyprune.devices import accuracy
from whyprune.recovery import twins
from whyprune.structure.units import Unit

REFERENCE = ("curves", "magnitude-l2")
CELLS = (("curves", "elimination"), REFERENCE, ("curves", "random"), ("uniform", "magnitude-l2"))
"""(widths, channels) that are compared."""
STEPS = ("repaired", "recovered")


def chosen_recovery() -> wp.Recovery:
    """The configuration in the record of `recover_resnet56`, for one pass over the images."""
    record = json.loads((RESULTS / "recover_resnet56.json").read_text())
    chosen = {field: record["headline"][field] for field in ("learning_rate", "mixup", "follow")}
    return wp.Recovery(epochs=1, holdout=0.0, distill=record["distill"], precision=record["precision"], **chosen)


def recovered(
    pruned: nn.Module,
    seed: Seed,
    units: Sequence[Unit],
    source: DataSource,
    normalization: Normalization,
    options: argparse.Namespace,
) -> nn.Module:
    """Fine-tuned for so many steps, each on images that no other step has."""
    recovery, network = options.recovery, seed.network
    images = options.recover_steps * recovery.batch_size
    train = Loader(
        source.train,
        normalization,
        recovery.batch_size,
        np.random.default_rng((seed.seed, images)).permutation(len(source.train))[:images],
        shuffle_seed=seed.seed,
        augment=Augmentation(),
        num_classes=10,
    )
    layers = twins(network, units)
    return wp.recover(pruned, train, recovery, dense=network.model, layers=layers, seed=seed.seed, progress=False).model


def row(
    seed: Seed, units: Sequence[Unit], source: DataSource, normalization: Normalization, options: argparse.Namespace
) -> dict[str, Any]:
    """Removes, repairs, recovers and measures."""
    watch, network, test = Stopwatch(), seed.network, test_images(source, normalization, options.test_images)
    chosen = network.select(units)
    repaired = wp.repair(network, wp.remove(network, chosen), chosen, seed.images.views(range(1)), seed=seed.seed)
    tuned = recovered(repaired, seed, chosen, source, normalization, options)
    cost = network.cost(chosen)
    return {
        "macs_ratio": cost.macs / network.cost().macs,
        "params_ratio": cost.params / network.cost().params,
        "repaired_top1_percent": accuracy(repaired, test, progress=False).top1_percent,
        "recovered_top1_percent": accuracy(tuned, test, progress=False).top1_percent,
        "steps": options.recover_steps,
        "seconds": watch.seconds,
    }


def differences(rows: Sequence[Mapping[str, Any]], steps: Sequence[str] = STEPS) -> dict[str, Any]:
    """Paired differences over seeds, in points: every cell less the reference, after each of the steps."""
    table = {tuple(r[field] for field in KEY): r for r in rows}
    result: dict[str, Any] = {}
    for ratio in sorted({r["fewer_macs"] for r in rows}):
        for widths, channels in CELLS:
            both = [
                (r, table[ratio, *REFERENCE, key[3]])
                for key, r in table.items()
                if key[:3] == (ratio, widths, channels) and (ratio, *REFERENCE, key[3]) in table
            ]
            if not both:
                continue
            for step in steps:
                name = f"{step}_{widths}_{channels}_{ratio:g}x"
                result[f"{name}_top1_percent"] = float(np.mean([ours[f"{step}_top1_percent"] for ours, _ in both]))
                if (widths, channels) != REFERENCE:
                    gaps = [a[f"{step}_top1_percent"] - b[f"{step}_top1_percent"] for a, b in both]
                    mean, span = paired(np.array(gaps))
                    result[f"{name}_less_reference_points"] = mean
                    result |= {f"{name}_less_reference_interval_points": span} if span else {}
    return result


def run(options: argparse.Namespace) -> None:
    """Runs what is not in the record yet, and adds it."""
    quick = options.quick
    source = cifar10()
    model, normalization = trained("resnet20" if quick else "resnet56")
    path = options.output or RESULTS / f"causal_pruning_recovered{'-quick' if quick else ''}.json"
    options.output, options.test_images = path, 1000 if quick else None
    options.recover_steps = min(options.recover_steps, 10) if quick else options.recover_steps
    options.recovery = chosen_recovery()
    done = {tuple(r[field] for field in KEY) for r in merged(path, [], KEY)}
    seeds = options.only_seeds or range(1 if quick else options.seeds)
    wanted = [(r, w, c, s) for s in seeds for r in options.ratios for w, c in CELLS]
    seed: Seed | None = None
    for ratio, widths, channels, number in wanted:
        if (ratio, widths, channels, number) in done:
            continue
        if seed is None or seed.seed != number:
            loader = calibration(source, normalization, 256 if quick else 1024, number)
            seed = Seed(wp.trace(model, next(iter(loader))[0][:2]).ignoring(STREAM), loader, number, quick)
        units = seed.channels(channels, seed.widths(widths, wp.Budget(macs=1 / ratio)))
        cell = {"fewer_macs": ratio, "widths": widths, "channels": channels, "seed": number}
        found = {**cell, **row(seed, units, source, normalization, options)}
        print(found, flush=True)
        rows = merged(path, [found], KEY)
        about = {"recovery": options.recovery.model_dump(), "data_fingerprint": fingerprint(source)}
        write_record("causal_pruning_recovered", options, differences(rows), rows, **about)


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--only-seeds", nargs="+", type=int, help="instead of all seeds")
    parser.add_argument("--recover-steps", type=int, default=390, help="of 128 images; 390 are one pass")
    parser.add_argument("--ratios", nargs="+", type=float, default=[3.0], help="how many times fewer MACs")
    run(parser.parse_args())
