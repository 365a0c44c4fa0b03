"""Cost of exact effects of the units of ResNet-56: this library against one full forward per unit.

Both run on the same images in one process, in turn. The full forwards are timed on a sample of the units (the same
operations for each, so the time per unit is the same), and their effects are compared with ours on that sample.
With --all-units the units of the residual stream are among them; `--network resnet50` measures a network with more than
20,000 units, with random weights, on a few random images: what counts there is the memory and the time per unit.
"""

import argparse
import resource
import statistics
from typing import Any

import numpy as np
import torch

import whyprune as wp
from benchmarks.common import RESULTS, Stopwatch, arguments, calibration, cifar10, fingerprint, trained, write_record
from benchmarks.coverage_models import subjects
from whyprune.causal.outcomes import LogitShift
from whyprune.data.outputs import logits_of
from whyprune.estimate import estimate


def studied(name: str, count: int) -> tuple[wp.Network, list[torch.Tensor], dict[str, Any]]:
    """The network, batches of at most 128 images, and what the record says of the data."""
    if name == "resnet50":
        subject = subjects("transformers")["ResNet-50"]
        images = subject.draw(count, 0)
        return wp.trace(subject.model(0), images[:2]), list(images.split(128)), {"weights": "random"}
    source = cifar10()
    model, normalization = trained(name)
    batches = [images for images, _ in calibration(source, normalization, count, 0)]
    return wp.trace(model, batches[0][:2]), batches, {"data_fingerprint": fingerprint(source)}


def naive_effects(network: wp.Network, units: list[wp.Unit], images: torch.Tensor) -> tuple[np.ndarray, float]:
    """Effects by one full forward of the masked network per unit, and seconds of the forwards alone."""
    found, seconds = [], 0.0
    with torch.inference_mode():
        dense = logits_of(network.model(images))
        outcome = LogitShift().fit(dense)
        for unit in units:
            masked = wp.masked(network, [unit])
            watch = Stopwatch()
            logits = torch.cat([logits_of(masked(part)) for part in images.split(128)])
            seconds += watch.seconds
            found.append(float(outcome(logits, dense, None).mean()))
    return np.array(found), seconds


def run(options: argparse.Namespace) -> None:
    """Times both, interleaved over rounds, and writes the record."""
    torch.set_num_threads(options.threads)
    network, batches, about = studied("resnet20" if options.quick else options.network, options.images)
    every = options.all_units or options.network == "resnet50"
    units = [u for u in network.units if every or (u.group.endswith("conv1") and u.group != "conv1")]
    images = torch.cat(batches)
    sample = units[:: max(1, len(units) // options.sample)]
    rows: list[dict[str, Any]] = []
    for repeat in range(options.rounds):
        expected, naive_s = naive_effects(network, sample, images)
        watch = Stopwatch()
        effects = estimate(network, batches, units=units, progress=options.progress)
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
        "beyond_suffix_share_per_unit": statistics.median(1 / r["speedup"] - r["macs_forwards_per_unit"] for r in rows),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "max_abs_difference": max(r["max_abs_difference"] for r in rows),
    }
    if options.output is None and not options.quick:
        kind = "_resnet50" if options.network == "resnet50" else "_all_units" if every else ""
        options.output = RESULTS / f"effect_cost{kind}.json"
    write_record("effect_cost", options, headline, rows, **about)


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--network", choices=("resnet56", "resnet50"), default="resnet56")
    parser.add_argument("--all-units", action="store_true", help="units of the residual stream as well")
    parser.add_argument("--progress", action="store_true", help="show the progress bar")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--sample", type=int, default=24, help="units that get a full forward each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    run(parser.parse_args())
