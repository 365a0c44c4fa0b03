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
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import nn

import whyprune as wp
from benchmarks.causal_pruning import Seed
from benchmarks.common import RESULTS, Stopwatch, test_images
from benchmarks.pruning_steps import compare, parser_of
from whyprune.data import Augmentation, DataSource, Loader, Normalization
from whyprune.devices import accuracy
from whyprune.recovery.config import RENAMED
from whyprune.structure.state import State
from whyprune.structure.units import Unit


def chosen_recovery() -> wp.Recovery:
    """The configuration in the record of `recover_resnet56`, for one pass over the images."""
    record = json.loads((RESULTS / "recover_resnet56.json").read_text())
    headline = {RENAMED.get(field, field): value for field, value in record["headline"].items()}
    chosen = {field: headline[field] for field in ("learning_rate", "mixup_alpha", "follow")}
    chosen |= {field: record[field] for field in ("distill", "precision")}
    return wp.Recovery(epochs=1, validation_fraction=0.0, **chosen)


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
    state = State(network, pruned, tuple(units))
    return wp.recover(state, train, recovery, seed=seed.seed, progress=False).model


def row(
    options: argparse.Namespace,
    seed: Seed,
    units: Sequence[Unit],
    source: DataSource,
    normalization: Normalization,
) -> dict[str, Any]:
    """Removes, repairs, recovers and measures."""
    watch, network = Stopwatch(), seed.network
    test = test_images(source, normalization, 1000 if options.quick else None)
    chosen = network.select(units)
    repaired = wp.repair(
        wp.State(network, wp.remove(network, chosen), chosen), seed.images.views(range(1)), seed=seed.seed
    ).model
    tuned = recovered(repaired, seed, chosen, source, normalization, options)
    return {
        "repaired_top1_percent": accuracy(repaired, test, progress=False).top1_percent,
        "recovered_top1_percent": accuracy(tuned, test, progress=False).top1_percent,
        "steps": options.recover_steps,
        "seconds": watch.seconds,
    }


def run(options: argparse.Namespace) -> None:
    """Runs what is not in the record yet, and adds it."""
    options.recover_steps = min(options.recover_steps, 10) if options.quick else options.recover_steps
    options.recovery = chosen_recovery()
    about = {"recovery": options.recovery.model_dump()}
    compare("causal_pruning_recovered", options, ("repaired", "recovered"), partial(row, options), **about)


if __name__ == "__main__":
    parser = parser_of(__doc__ or "", [3.0])
    parser.add_argument("--recover-steps", type=int, default=390, help="of 128 images; 390 are one pass")
    run(parser.parse_args())
