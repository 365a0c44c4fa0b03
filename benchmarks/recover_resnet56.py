"""Accuracy of ResNet-56 on CIFAR-10 at half its MACs after two epochs of fine-tuning, distilled from the dense network.

Every configuration starts from the same pruned, repaired network. The epoch is chosen by accuracy on a tenth of the
training images that are held out. All networks know those by heart, so accuracy there says little of new images: the
configuration is chosen by how often it agrees with the dense network on mixtures of held-out images, which nobody has
seen. Then the test images are read, once.
"""

import argparse
import copy
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import whyprune as wp
from benchmarks.common import (
    Stopwatch,
    arguments,
    calibration,
    cifar10,
    fingerprint,
    test_images,
    trained,
    write_record,
)
from whyprune.data import Augmentation, DataSource, Loader, Normalization
from whyprune.data.batches import Batch
from whyprune.devices import accuracy
from whyprune.recovery import RecoveryResult
from whyprune.recovery.mixup import mixed
from whyprune.structure.file import read_plan
from whyprune.structure.state import State


def pruned_network(
    options: argparse.Namespace, model: nn.Module, source: DataSource, normalization: Normalization
) -> tuple[nn.Module, Sequence[str]]:
    """The pruned, repaired network and the units it lacks: read from `--pruned`, or made (and kept there)."""
    if options.pruned is not None and options.pruned.exists():
        return wp.load(copy.deepcopy(model), options.pruned), read_plan(options.pruned).units
    loader = calibration(source, normalization, 256 if options.quick else options.calibration_images, options.seed)
    first, _ = next(iter(loader))
    result = wp.prune(
        model,
        loader,
        budget=wp.Budget(macs=0.5),
        example_inputs=first[:2],
        augment=Augmentation(),
        settings=wp.Settings(effect_images=16, latency=False, refute=False),
        seed=options.seed,
        progress=False,
    )
    if options.pruned is not None:
        result.save(options.pruned)
    return result.model, result.plan.units


def recovered(
    options: argparse.Namespace,
    pruned: State,
    source: DataSource,
    normalization: Normalization,
    tuning: dict[str, float],
) -> RecoveryResult:
    """Fine-tunes with one configuration; no test image is read."""
    recovery = wp.Recovery(epochs=options.epochs, distill=options.distill, precision=options.precision, **tuning)
    train = Loader(
        source.train,
        normalization,
        recovery.batch_size,
        range(4096) if options.quick else None,
        shuffle_seed=options.seed,
        augment=Augmentation(),
        num_classes=10,
    )
    checkpoint = None if options.workspace is None else options.workspace / f"{name_of(tuning)}.safetensors"
    if checkpoint is not None:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
    return wp.recover(
        pruned,
        train,
        recovery,
        seed=options.seed,
        checkpoint=checkpoint,
        resume=checkpoint is not None and checkpoint.exists(),
        progress=False,
    )


def name_of(tuning: dict[str, float]) -> str:
    """A configuration as a file name."""
    return "-".join(f"{name}-{value:g}" for name, value in tuning.items())


def validation_accuracy(result: RecoveryResult) -> float:
    """Accuracy of the kept epoch on the validation images, in percent."""
    found = result.history[result.best_epoch - 1].validation_top1_percent
    return float("nan") if found is None else found


@torch.inference_mode()
def agreement(model: nn.Module, dense: nn.Module, images: Loader) -> float:
    """How often two networks predict the same class for mixtures of images, in percent."""
    same = total = 0
    for number, (x, y) in enumerate(images):
        batch, _ = mixed(Batch((x,), {}, y), 1.0, np.random.default_rng(number))
        same += int((batch.call(model).argmax(1) == batch.call(dense).argmax(1)).sum())
        total += len(batch)
    return 100 * same / total


def run(options: argparse.Namespace) -> None:
    """Prunes, fine-tunes in every configuration, chooses, reads the test images and writes the record."""
    source = cifar10()
    model, normalization = trained("resnet20" if options.quick else "resnet56")
    pruned, units = pruned_network(options, model, source, normalization)
    network = wp.trace(model, next(iter(test_images(source, normalization, 2)))[0])
    state = State(network, pruned, network.select(units))
    every = Loader(source.train, normalization, 250, range(4096) if options.quick else None, num_classes=10)
    _, unseen = every.hold_out(0.1, options.seed)  # the images that recovery holds out, by the same seed
    found: dict[str, RecoveryResult] = {}
    rows: list[dict[str, Any]] = []
    for rate, mixup, follow in product(options.learning_rates, options.mixup_alphas, options.follows):
        watch, tuning = Stopwatch(), {"learning_rate": rate, "mixup_alpha": mixup, "follow": follow}
        result = recovered(options, state, source, normalization, tuning)
        row = {
            **tuning,
            "validation_top1_percent": validation_accuracy(result),
            "agreement_on_mixtures_percent": agreement(result.model, model, unseen),
            "seconds": watch.seconds,
            "history": [epoch.model_dump() for epoch in result.history],
        }
        print({key: value for key, value in row.items() if key != "history"}, flush=True)
        rows.append(row)
        found[name_of(tuning)] = result
    best = max(rows, key=lambda row: row["agreement_on_mixtures_percent"])
    chosen = {name: best[name] for name in ("learning_rate", "mixup_alpha", "follow")}
    test = test_images(source, normalization, 1000 if options.quick else None)
    final = accuracy(found[name_of(chosen)].model, test, progress=False)
    example, _ = next(iter(test_images(source, normalization, 2)))
    macs, dense_macs = (wp.trace(network, example).cost().macs for network in (pruned, model))
    headline = {
        "dense_top1_percent": accuracy(model, test, progress=False).top1_percent,
        "repaired_top1_percent": accuracy(pruned, test, progress=False).top1_percent,
        "recovered_top1_percent": final.top1_percent,
        "macs_ratio": macs / dense_macs,
        "epochs": options.epochs,
        **chosen,
    }
    write_record(
        "recover_resnet56",
        options,
        headline,
        rows,
        recovered_interval_percent=final.interval_percent,
        distill=options.distill,
        calibration_images=options.calibration_images,
        precision=options.precision,
        data_fingerprint=fingerprint(source),
        seed=options.seed,
    )


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rates", nargs="+", type=float, default=[0.003, 0.01])
    parser.add_argument("--mixup-alphas", nargs="+", type=float, default=[0.0, 1.0])
    parser.add_argument("--distill", type=float, default=0.9)
    parser.add_argument("--follows", nargs="+", type=float, default=[0.0, 10.0])
    parser.add_argument("--calibration-images", type=int, default=1024, help="of the pruning, without labels")
    parser.add_argument("--precision", default="32-true", help="bf16-mixed is faster on CPUs that have it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pruned", type=Path, help="the folder of the pruned network; made if it is not there")
    parser.add_argument("--workspace", type=Path, help="keep checkpoints here and go on from them")
    run(parser.parse_args())
