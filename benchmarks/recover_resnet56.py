"""Accuracy of ResNet-56 on CIFAR-10 at half its MACs after two epochs of fine-tuning, distilled from the dense network.

The best epoch is chosen on a tenth of the training images that are held out; the test images are read at the end.
"""

import argparse
from pathlib import Path

import whyprune as wp
from benchmarks.common import (
    arguments,
    calibration,
    cifar10,
    fingerprint,
    test_images,
    trained,
    write_record,
)
from whyprune.data import Augmentation, Loader


def run(options: argparse.Namespace) -> None:
    """Prunes, fine-tunes and writes the record."""
    source = cifar10()
    model, normalization = trained("resnet20" if options.quick else "resnet56")
    images, tested = (256, 1000) if options.quick else (1024, None)
    loader = calibration(source, normalization, images, options.seed)
    first, _ = next(iter(loader))
    recovery = wp.Recovery(epochs=options.epochs, learning_rate=options.learning_rate, distill=options.distill)
    train = Loader(
        source.train,
        normalization,
        recovery.batch_size,
        range(4096) if options.quick else None,
        shuffle_seed=options.seed,
        augment=Augmentation(),
        num_classes=10,
    )
    result = wp.prune(
        model,
        loader,
        budget=wp.Budget(macs=0.5),
        example_inputs=first[:2],
        augment=Augmentation(),
        recovery=recovery,
        recovery_data=train,
        test=test_images(source, normalization, tested),
        settings=wp.Settings(effect_images=16, latency=False),
        workspace=options.workspace,
        resume=options.workspace is not None,
        seed=options.seed,
        progress=False,
    )
    measured = result.measurements
    headline = {
        "dense_top1_percent": measured.dense.top1_percent,
        "repaired_top1_percent": measured.accuracy_after.repair,
        "recovered_top1_percent": measured.accuracy_after.recovery,
        "macs_ratio": measured.pruned.macs / measured.dense.macs,
        "epochs": options.epochs,
    }
    rows = [epoch.model_dump() for epoch in measured.recovery]
    write_record(
        "recover_resnet56",
        options,
        headline,
        rows,
        asked=measured.asked,
        timings_s=measured.timings_s,
        data_fingerprint=fingerprint(source),
        seed=options.seed,
    )


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--distill", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workspace", type=Path, help="keep finished stages here and go on from them")
    run(parser.parse_args())
