"""What reconstructing residual branches adds to the closed-form repair, still without labels.

As `causal_pruning`: ResNet-56 on CIFAR-10, the channels inside blocks, 1,024 unlabelled training images, the same
widths and channels. Every network is repaired, and then reconstructed on as many other views of the same images. Both
read the test images once; differences are paired over calibration seeds. Nothing is chosen by the result: rounds,
iterations and damping are the library's own.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

import whyprune as wp
from benchmarks.causal_pruning import Seed
from benchmarks.common import Stopwatch, test_images
from benchmarks.pruning_steps import compare, parser_of
from whyprune.data import DataSource, Normalization
from whyprune.devices import accuracy
from whyprune.structure.units import Unit


def row(
    options: argparse.Namespace,
    seed: Seed,
    units: Sequence[Unit],
    source: DataSource,
    normalization: Normalization,
) -> dict[str, Any]:
    """Removes, repairs, reconstructs and measures."""
    network, chosen, views = seed.network, seed.network.select(units), 1 if options.quick else options.views
    test, watch = test_images(source, normalization, 1000 if options.quick else None), Stopwatch()
    repaired = wp.repair(
        wp.State(network, wp.remove(network, chosen), chosen), seed.images.views(range(views)), seed=seed.seed
    ).model
    repairing = watch.seconds
    others = seed.images.views(range(views, 2 * views))
    reconstructed = wp.reconstruct(wp.State(network, repaired, chosen), others, seed=seed.seed).model
    return {
        "repair_seconds": repairing,
        "reconstruction_seconds": watch.seconds - repairing,
        "repaired_top1_percent": accuracy(repaired, test, progress=False).top1_percent,
        "reconstructed_top1_percent": accuracy(reconstructed, test, progress=False).top1_percent,
    }


if __name__ == "__main__":
    parser = parser_of(__doc__ or "", [2.0, 3.0])
    parser.add_argument("--views", type=int, default=8, help="of every calibration image, in each of the two")
    asked = parser.parse_args()
    compare("reconstruction", asked, ("repaired", "reconstructed"), partial(row, asked), views=asked.views)
