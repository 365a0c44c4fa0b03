"""Cost of exact effects of all block-internal units of ResNet-56: this library against one full forward per unit.

Both run on the same images in one process, in turn. The full forwards are timed on a sample of the units (the same
operations for each, so the time per unit is the same), and their effects are compared with ours on that sample.
"""

import argparse
import statistics
from typing import Any

import numpy as np
import torch

import whyprune as wp
from benchmarks.common import Stopwatch, arguments, calibration, cifar10, fingerprint, trained, write_record
from whyprune.causal.outcomes import LogitShift
from whyprune.estimate import estimate


def naive_effects(network: wp.Network, units: list[wp.Unit], images: torch.Tensor) -> tuple[np.ndarray, float]:
    """Effects by one full forward of the masked network per unit, and seconds of the forwards alone."""
    networks = [wp.masked(network, [unit]) for unit in units]
    with torch.inference_mode():
        dense = network.model(images)
        outcome = LogitShift().fit(dense)
        watch = Stopwatch()
        logits = [masked(images) for masked in networks]
        seconds = watch.seconds
    return np.array([float(outcome(z, dense, None).mean()) for z in logits]), seconds


def run(options: argparse.Namespace) -> None:
    """Times both, interleaved over rounds, and writes the record."""
    torch.set_num_threads(options.threads)
    source = cifar10()
    model, normalization = trained("resnet20" if options.quick else "resnet56")
    images, _ = next(iter(calibration(source, normalization, options.images, 0)))
    network = wp.trace(model, images[:2])
    units = [u for u in network.units if u.group.endswith("conv1") and u.group != "conv1"]
    sample = units[:: max(1, len(units) // options.sample)]
    rows: list[dict[str, Any]] = []
    for repeat in range(options.rounds):
        expected, naive_s = naive_effects(network, sample, images)
        watch = Stopwatch()
        effects = estimate(network, [images], units=units)
        ours_s = watch.seconds
        found = np.array([effects[u] for u in sample])
        rows.append(
            {
                "round": repeat,
                "naive_s_per_unit": naive_s / len(sample),
                "ours_s_per_unit": ours_s / len(units),
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
        "max_abs_difference": max(r["max_abs_difference"] for r in rows),
    }
    write_record("effect_cost", options, headline, rows, data_fingerprint=fingerprint(source))


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--images", type=int, default=128, help="images (at most one batch of 128)")
    parser.add_argument("--sample", type=int, default=24, help="units that get a full forward each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    run(parser.parse_args())
