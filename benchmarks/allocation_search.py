"""One search for all kinds of budgets, beside the greedy walk: the effect that their plans predict, and their time.

Both go along the same measured response curves to the same share of the MACs. ResNet-20 (CIFAR-10, trained) has curves
measured on calibration images; ResNet-50 (random weights) has made-up ones, and shows what the search takes on a large
network. Times are CPU seconds of one process, one after the other. No image of the test set is read.
"""

import argparse
import time
from typing import Any

import numpy as np
import torch

import whyprune as wp
from benchmarks.common import (
    RESULTS,
    arguments,
    calibration,
    cifar10,
    commit,
    fingerprint,
    merged,
    trained,
    write_record,
)
from benchmarks.latency_budget_subject import made_up, untrained
from whyprune.allocation import allocate_curves
from whyprune.causal.response.curves import response_curves
from whyprune.data.batches import split_images
from whyprune.data.calibration import calibrate
from whyprune.effects.effects import ResponseCurve

RATIOS = (0.7, 0.5, 0.33, 0.25)
KEY = ("network", "seed", "macs", "allocation")


def rows(
    name: str, network: wp.Network, curves: dict[str, ResponseCurve], seed: int, ratios: tuple[float, ...]
) -> list[dict[str, Any]]:
    """A row per share of the MACs and allocation."""
    found = []
    for ratio in ratios:
        for allocation in ("greedy", "curves"):
            start = time.process_time()
            plan = allocate_curves(network, curves, wp.Budget(macs=ratio), allocation=allocation)
            row = {"network": name, "seed": seed, "macs": ratio, "allocation": allocation, "git_commit": commit()}
            row |= {"predicted": plan.predicted, "macs_ratio": plan.macs / network.cost().macs}
            found.append(row | {"cpu_seconds": time.process_time() - start, "groups": len(network.groups)})
            print(found[-1], flush=True)
    return found


def measured(images: int, seed: int) -> tuple[wp.Network, dict[str, ResponseCurve], str]:
    """The trained ResNet-20 and its curves."""
    source = cifar10()
    model, normalization = trained("resnet20")
    loader = calibration(source, normalization, images, seed)
    network = wp.trace(model, next(iter(loader))[0][:2])
    parts = split_images(calibrate(loader, 1, None, seed).planning)
    return network, response_curves(network, *parts, seed=seed), fingerprint(source)


def headline(every: list[dict[str, Any]]) -> dict[str, float]:
    """Per network: the search's predicted effect and time as shares of the greedy walk's, geometric means."""
    found = {}
    for name in dict.fromkeys(row["network"] for row in every):
        own = [row for row in every if row["network"] == name]
        pairs = [[r for r in own if r["allocation"] == kind] for kind in ("curves", "greedy")]
        for key in ("predicted", "cpu_seconds"):
            shares = [a[key] / b[key] for a, b in zip(*pairs, strict=True) if b[key] > 0]
            found[f"{name}_search_over_greedy_{key}"] = float(np.exp(np.mean(np.log(shares))))
    return found


def run(options: argparse.Namespace) -> None:
    """Runs both networks."""
    torch.set_num_threads(1)
    ratios = RATIOS[:2] if options.quick else RATIOS
    new: list[dict[str, Any]] = []
    for seed in range(1 if options.quick else options.seeds):
        network, curves, data = measured(192 if options.quick else 512, seed)
        new += rows("resnet20", network, curves, seed, ratios)
    model, shape = untrained("resnet50")
    network = wp.trace(model, torch.randn(2, *shape))
    new += rows("resnet50", network, made_up(network)[0], 0, ratios[:1] if options.quick else ratios)
    path = options.output or RESULTS / f"allocation_search{'-quick' if options.quick else ''}.json"
    every = merged(path, new, KEY)
    write_record("allocation_search", options, headline(every), every, data_fingerprint=data)


if __name__ == "__main__":
    run(arguments(__doc__ or "").parse_args())
