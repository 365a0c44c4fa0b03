"""Budgets in latency: is the measured ratio the one asked for, what do MACs realise, and what does it cost in accuracy.

ResNet-56 (CIFAR-10, trained), MobileNetV2 and ResNet-50 (random weights: latency only) are pruned to half their
latency on ONNX Runtime and OpenVINO, batch 1 and 16, on one and two threads: planned from the device's table,
measured, corrected, planned again (`whyprune.pipeline.device_budget`); residual blocks may go as a whole. The ratio
that counts is measured again at the end, beside the dense network alone, as a ratio of medians with its interval. For
ResNet-56 the plan comes from response curves of 1,024 unlabelled training images and is repaired in closed form,
without a gradient step; beside it stand plans for a MACs budget from the same curves with the same repair, of widths
alone and with blocks, at the multiples of the latency plan's widths, or at any; and Torch-Pruning's network, as it is
and with the same repair; each at the same measured latency. Differences in accuracy are paired over the test images,
which are read once, at the end. Networks with random weights have made-up effects (`made_up`). Cells can be run one
at a time and are merged.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

import whyprune as wp
from benchmarks.common import (
    RESULTS,
    Stopwatch,
    arguments,
    merged,
    write_record,
)
from benchmarks.latency_budget_baselines import macs_of, macs_plan, torch_pruning, units_left_out
from benchmarks.latency_budget_profile import operator_times
from benchmarks.latency_budget_subject import ASKED, Subject, subject
from whyprune.allocation.constraints import Constraints
from whyprune.devices import accuracy, latency_ratio, paired_difference
from whyprune.devices.inputs import inputs_for
from whyprune.devices.local import LocalDevice
from whyprune.devices.table import fastest_ms

MODELS = ("resnet56", "mobilenet_v2", "resnet50")
RUNTIMES = ("ort", "openvino")
THREADS = (1, 2)
BATCHES = (1, 16)
KEY = ("model", "runtime", "threads", "batch", "seed")


@dataclass(frozen=True)
class Cell:
    """One row of the record."""

    model: str
    runtime: str
    threads: int
    batch: int

    @classmethod
    def parse(cls, text: str) -> "Cell":
        """Reads `resnet56:ort:1:16` (model, runtime, threads, batch)."""
        model, runtime, threads, batch = text.split(":")
        return cls(model, runtime, int(threads), int(batch))

    def device(self) -> LocalDevice:
        """Where it is measured."""
        return LocalDevice(self.runtime, self.threads, self.batch)


def measured(device: LocalDevice, networks: Mapping[str, nn.Module], example: Any) -> dict[str, Any]:
    """Medians of all networks in one interleaved run, and each one's ratio to the dense network."""
    found = device(networks, inputs_for(device, example))
    row: dict[str, Any] = {"p50_ms": {name: found.latency[name].p50_ms for name in networks}, "ratios": {}}
    for name in networks:
        if name != "dense":
            calm = found.calm_ms("dense", name)
            ratio = latency_ratio(*calm)
            low, high = ratio.interval
            fastest = fastest_ms(found, name) / fastest_ms(found, "dense")
            numbers = {"ratio": 1 / ratio.speedup, "interval": [1 / high, 1 / low], "low_quantile": fastest}
            row["ratios"][name] = {**numbers, "calm_rounds": len(calm[0]), "rounds": len(found.samples_ms[name])}
    row |= {"versions": found.versions, "machine": found.machine, "max_abs_difference": found.max_abs_difference}
    return row


def cell_row(cell: Cell, quick: bool, seed: int, *, compare: bool = True) -> dict[str, Any]:
    """Plans, measures, and compares, where there are images, with the other plans."""
    watch, device = Stopwatch(), cell.device()
    what = subject(cell.model, quick, seed)
    network, dense = what.network, what.network.cost()
    plan, aim = what.plan(device)
    record = aim.records(plan)[0]
    networks = {"dense": network.model, "latency": wp.remove(network, plan.units)}
    macs = {"dense": dense.macs, "latency": plan.macs}
    if what.images is not None and compare:
        networks["latency"] = what.repaired(plan.units)
        free = Constraints()
        for name, blocks, within in (
            ("macs", False, aim.constraints),
            ("macs-blocks", True, aim.constraints),
            ("macs-any-width", False, free),
        ):
            planned = partial(what.for_macs, blocks=blocks, constraints=within)
            other, _ = macs_plan(network, planned, device, record.measured_ratio)
            networks[name], macs[name] = what.repaired(other.units), other.macs
        theirs = torch_pruning(network, device, record.measured_ratio)
        if theirs is not None:
            networks["torch-pruning"] = theirs[0]
            macs["torch-pruning"] = macs_of(theirs[0], network.example.args[0])
            networks["torch-pruning-repaired"] = what.repaired(units_left_out(network, theirs[0]))
    alone = measured(device, {name: networks[name] for name in ("dense", "latency")}, network.example)
    final = measured(device, networks, network.example) if len(networks) > 2 else alone
    fewer = dense.macs / plan.macs
    row = {
        **vars(cell),
        "seed": seed,
        "asked_ratio": ASKED,
        "predicted_ratio": record.predicted_ratio,
        "loop_ratio": record.measured_ratio,
        "measured_ratio": alone["ratios"]["latency"]["ratio"],
        "measured_interval": alone["ratios"]["latency"]["interval"],
        "macs_ratio": 1 / fewer,
        "params_ratio": plan.params / dense.params,
        "realised_over_macs": 1 / (alone["ratios"]["latency"]["ratio"] * fewer),
        "turns": [iteration.model_dump() for iteration in record.iterations],
        "table_rows": record.table_rows,
        "share_of_rows": record.share_of_rows,
        "blocks": list(plan.blocks),
        "widths": {g.name: len(g.units) - plan.removed_per_group().get(g.name, 0) for g in network.groups},
        "macs": macs,
        "alone": alone,
        "final": final,
    }
    if cell.runtime == "ort":
        inputs = inputs_for(device, network.example)[slice(0, cell.batch)]
        row["profile"] = {n: operator_times(networks[n], inputs, cell.threads) for n in ("dense", "latency")}
    if what.images is not None and compare:
        row |= accuracies(what, networks)
    return {**row, "seconds": watch.seconds}


def accuracies(what: Subject, networks: Mapping[str, nn.Module]) -> dict[str, Any]:
    """Top-1 of every network on the test images, and paired differences of the latency plan to the others."""
    assert what.images is not None
    every = dict(networks)
    if "torch-pruning" in every:
        every["torch-pruning, batch norm"] = wp.reestimate_batch_norm(every["torch-pruning"], what.images.planning)
    found = {name: accuracy(model, what.test, progress=False) for name, model in every.items()}
    gaps = {}
    ours = found["latency"].correct
    for name, theirs in found.items():
        if name not in ("dense", "latency"):
            difference, interval = paired_difference(ours, theirs.correct)
            gaps[name] = {"points": difference, "interval": list(interval)}
    return {
        "top1_percent": {name: value.top1_percent for name, value in found.items()},
        "latency_plan_over": gaps,
        "test_images": what.test.images,
        "data_fingerprint": what.fingerprint,
    }


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures that must hold."""
    errors = [100 * abs(r["measured_ratio"] / r["asked_ratio"] - 1) for r in rows]
    figures: dict[str, Any] = {
        "budget_error_percent": float(np.max(errors)),
        "median_budget_error_percent": float(np.median(errors)),
        "realised_over_macs_ratio": float(np.exp(np.mean([np.log(r["realised_over_macs"]) for r in rows]))),
        "cells": len(rows),
    }
    for name, key in (
        ("macs", "over_macs_plan_points"),
        ("macs-blocks", "over_macs_plan_with_blocks_points"),
        ("torch-pruning, batch norm", "over_torch_pruning_points"),
        ("torch-pruning-repaired", "over_repaired_torch_pruning_points"),
    ):
        gaps = [r["latency_plan_over"][name]["points"] for r in rows if name in r.get("latency_plan_over", {})]
        if gaps:
            figures[key] = float(np.mean(gaps))
    return figures


def run(options: argparse.Namespace) -> None:
    """Runs what is asked for and adds it to the record."""
    torch.set_num_threads(1)
    path = options.output or RESULTS / f"latency_budget{'-quick' if options.quick else ''}.json"
    options.output = path
    every = [Cell(m, r, t, b) for m in MODELS for r in RUNTIMES for t in THREADS for b in BATCHES]
    quick = [Cell("resnet20", "ort", 1, 1), Cell("mobilenet_v2", "ort", 1, 1)]
    cells = [Cell.parse(text) for text in options.only] if options.only else quick if options.quick else every
    for seed in options.only_seeds or [0]:
        for cell in cells:
            row = cell_row(cell, options.quick, seed, compare=options.compare)
            shown = ("model", "runtime", "threads", "batch", "measured_ratio", "macs_ratio", "realised_over_macs")
            print({k: row[k] for k in shown}, row.get("top1_percent"), row.get("latency_plan_over"), flush=True)
            rows = merged(path, [row], KEY)
            write_record("latency_budget", options, summary(rows), rows)


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", nargs="+", help="cells MODEL:RUNTIME:THREADS:BATCH, such as resnet56:ort:1:16")
    parser.add_argument(
        "--no-compare",
        dest="compare",
        action="store_false",
        help="no repair, no accuracy, no other plans",
    )
    parser.add_argument("--only-seeds", nargs="+", type=int, help="calibration seeds; default 0")
    run(parser.parse_args())
