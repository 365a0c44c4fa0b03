"""What reconstructing residual branches adds to the closed-form repair, still without labels.

As `causal_pruning`: ResNet-56 on CIFAR-10, the channels inside blocks, 1,024 unlabelled training images, the same
widths and channels. Every network is repaired, and then reconstructed on as many other views of the same images. Both
read the test images once; differences are paired over calibration seeds. Nothing is chosen by the result: rounds,
iterations and damping are the library's own.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import whyprune as wp
from benchmarks.causal_pruning import KEY, STREAM, Seed
from benchmarks.causal_pruning_recovered import CELLS, differences
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
from whyprune.data import Loader
from whyprune.devices import accuracy
from whyprune.structure.units import Unit

STEPS = ("repaired", "reconstructed")


def row(seed: Seed, units: Sequence[Unit], test: Loader, views: int) -> dict[str, Any]:
    """Removes, repairs, reconstructs and measures."""
    network, chosen = seed.network, seed.network.select(units)
    watch = Stopwatch()
    repaired = wp.repair(network, wp.remove(network, chosen), chosen, seed.images.views(range(views)), seed=seed.seed)
    repairing = watch.seconds
    others = seed.images.views(range(views, 2 * views))
    reconstructed = wp.reconstruct(network, repaired, chosen, others, seed=seed.seed)
    cost = network.cost(chosen)
    return {
        "macs_ratio": cost.macs / network.cost().macs,
        "params_ratio": cost.params / network.cost().params,
        "repaired_top1_percent": accuracy(repaired, test, progress=False).top1_percent,
        "reconstructed_top1_percent": accuracy(reconstructed, test, progress=False).top1_percent,
        "repair_seconds": repairing,
        "reconstruction_seconds": watch.seconds - repairing,
    }


def run(options: argparse.Namespace) -> None:
    """Runs what is not in the record yet, and adds it."""
    quick = options.quick
    source = cifar10()
    model, normalization = trained("resnet20" if quick else "resnet56")
    test = test_images(source, normalization, 1000 if quick else None)
    options.output = path = options.output or RESULTS / f"reconstruction{'-quick' if quick else ''}.json"
    done = {tuple(r[field] for field in KEY) for r in merged(path, [], KEY)}
    seed: Seed | None = None
    for number in options.only_seeds or range(1 if quick else options.seeds):
        for ratio, (widths, channels) in [(r, CELLS[k]) for r in options.ratios for k in options.cells]:
            if (ratio, widths, channels, number) in done:
                continue
            if seed is None or seed.seed != number:
                loader = calibration(source, normalization, 256 if quick else 1024, number)
                seed = Seed(wp.trace(model, next(iter(loader))[0][:2]).ignoring(STREAM), loader, number, quick)
            units = seed.channels(channels, seed.widths(widths, wp.Budget(macs=1 / ratio)))
            cell = {"fewer_macs": ratio, "widths": widths, "channels": channels, "seed": number}
            found = {**cell, **row(seed, units, test, 1 if quick else options.views)}
            print(found, flush=True)
            rows = merged(path, [found], KEY)
            about = {"data_fingerprint": fingerprint(source), "views": options.views}
            write_record("reconstruction", options, differences(rows, STEPS), rows, **about)


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--only-seeds", nargs="+", type=int, help="instead of all seeds")
    parser.add_argument("--views", type=int, default=8, help="of every calibration image, in each of the two")
    parser.add_argument("--cells", nargs="+", type=int, default=range(len(CELLS)), help="which of the comparison")
    parser.add_argument("--ratios", nargs="+", type=float, default=[2.0, 3.0], help="how many times fewer MACs")
    run(parser.parse_args())
