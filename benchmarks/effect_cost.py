"""Cost of exact effects of the units of ResNet-56: this library against one full forward per unit.

Both run on the same images in one process, in turn. The full forwards are timed on a sample of the units (the same
operations for each, so the time per unit is the same), and their effects are compared with ours on that sample. Time is
that of the processor, which other processes on it do not lengthen.
With --all-units the units of the residual stream are among them. `--network resnet50` and `resnet101` (more than 20,000
units) measure networks of that size, with random weights, on a few random images of `--pixels`: what counts there is
the memory and the time per unit.
"""

import argparse
import resource
import statistics
import time
from typing import Any

import numpy as np
import torch
from torch import nn

import whyprune as wp
from benchmarks.common import RESULTS, arguments, calibration, cifar10, fingerprint, trained, write_record
from benchmarks.coverage_models import images as random_images
from benchmarks.coverage_models import randomised
from whyprune.data.outputs import logits_of
from whyprune.effects.outcomes import LogitShift
from whyprune.scoring.estimate import estimate

LARGE = {"resnet50": [3, 4, 6, 3], "resnet101": [3, 4, 23, 3]}
"""Name -> blocks per stage."""


def studied(name: str, count: int, pixels: int) -> tuple[wp.Network, list[torch.Tensor], dict[str, Any]]:
    """The network, batches of at most 128 images, and what the record says of the data."""
    if name in LARGE:
        images = random_images((3, pixels, pixels), count, 0)
        network = wp.trace(large(name), images[:2])
        return network, list(images.split(128)), {"weights": "random", "pixels": pixels}
    source = cifar10()
    model, normalization = trained(name)
    batches = [images for images, _ in calibration(source, normalization, count, 0)]
    return wp.trace(model, batches[0][:2]), batches, {"data_fingerprint": fingerprint(source)}


def large(name: str) -> nn.Module:
    """A network for ImageNet with random weights."""
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(depths=LARGE[name], num_labels=1000)
    torch.manual_seed(0)
    return randomised(ResNetForImageClassification(config), 0)


def naive_effects(network: wp.Network, units: list[wp.Unit], images: torch.Tensor) -> tuple[np.ndarray, float]:
    """Effects by one full forward of the masked network per unit, and seconds of the forwards alone."""
    found, seconds = [], 0.0
    with torch.inference_mode():
        dense = logits_of(network.model(images))
        outcome = LogitShift().fit(dense)
        for unit in units:
            masked = wp.masked(network, [unit])
            began = time.process_time()
            logits = torch.cat([logits_of(masked(part)) for part in images.split(128)])
            seconds += time.process_time() - began
            found.append(float(outcome(logits, dense, None).mean()))
    return np.array(found), seconds


def peak_memory_mb() -> float:
    """The most that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(options: argparse.Namespace) -> None:
    """Times both, interleaved over rounds, and writes the record."""
    torch.set_num_threads(options.threads)
    network, batches, about = studied("resnet20" if options.quick else options.network, options.images, options.pixels)
    every = options.all_units or options.network in LARGE
    traced_mb = peak_memory_mb()
    units = [u for u in network.units if every or (u.group.endswith("conv1") and u.group != "conv1")]
    images = torch.cat(batches)
    sample = units[:: max(1, len(units) // options.sample)]
    rows: list[dict[str, Any]] = []
    for repeat in range(options.rounds):
        expected, naive_s = naive_effects(network, sample, images)
        began = time.process_time()
        effects = estimate(network, batches, units=units, progress=options.progress)
        ours_s = time.process_time() - began
        found = np.array([effects[u] for u in sample])
        rows.append(
            {
                "round": repeat,
                "naive_cpu_s_per_unit": naive_s / len(sample),
                "ours_cpu_s_per_unit": ours_s / len(units),
                "speedup": naive_s / len(sample) / (ours_s / len(units)),
                "max_abs_difference": float(np.abs(found - expected).max()),
                "macs_forwards_per_unit": effects.forwards_per_unit,
            }
        )
        print(rows[-1], flush=True)
    headline = {
        "units": len(units),
        "images": len(images),
        "threads": options.threads,
        "speedup_median": statistics.median(r["speedup"] for r in rows),
        "speedup_min": min(r["speedup"] for r in rows),
        "dense_forward_equivalents_per_unit_time": statistics.median(1 / r["speedup"] for r in rows),
        "dense_forward_equivalents_per_unit_macs": rows[0]["macs_forwards_per_unit"],
        "beyond_suffix_share_per_unit": statistics.median(1 / r["speedup"] - r["macs_forwards_per_unit"] for r in rows),
        "peak_memory_mb": peak_memory_mb(),
        "peak_memory_before_mb": traced_mb,
        "max_abs_difference": max(r["max_abs_difference"] for r in rows),
    }
    if options.output is None and not options.quick:
        kind = f"_{options.network}" if options.network in LARGE else "_all_units" if every else ""
        options.output = RESULTS / f"effect_cost{kind}.json"
    write_record("effect_cost", options, headline, rows, **about)


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--network", choices=("resnet56", *LARGE), default="resnet56")
    parser.add_argument("--all-units", action="store_true", help="units of the residual stream as well")
    parser.add_argument("--progress", action="store_true", help="show the progress bar")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--pixels", type=int, default=224, help="height and width of images of the large networks")
    parser.add_argument("--sample", type=int, default=24, help="units that get a full forward each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    run(parser.parse_args())
