"""The plan made for one device, on every other: what does it cost to plan for the wrong one?

    python -m benchmarks.plans_by_devices --devices local-ort-1t,local-openvino-1t,edge-openvino,pi4-1t,pi5-1t

Response curves, and effects of residual blocks that go as a whole, are measured once. For every device a plan is made
that meets the same latency budget there, and one of widths for the same share of MACs. Every plan is then run, or
predicted, on every device beside the dense network. Nothing is repaired or recovered: what is compared is speed, at the
effect that the curves predict.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

import whyprune as wp
from benchmarks.common import Stopwatch, arguments, calibration, cifar10, trained, write_record
from whyprune.allocation import Budget, allocate_curves
from whyprune.allocation.constraints import Constraints
from whyprune.causal.response.bypass import bypass_effects
from whyprune.causal.response.curves import response_curves
from whyprune.data import Normalization, load_source
from whyprune.data.batches import as_batches, split_images
from whyprune.devices import Device, Measurement, device
from whyprune.effects.effects import ResponseCurve
from whyprune.errors import BudgetError, WhypruneError
from whyprune.models import load_model, train_digits
from whyprune.pipeline.device_budget import inputs_for, measured_ratio, on_device
from whyprune.structure.network import Network
from whyprune.structure.plan import Plan

HERE = ("local-ort-1t", "local-openvino-1t", "local-torch-1t", "laptop-ort", "edge-ort", "edge-openvino")
BOARDS = (
    *("pi-zero-2w", "pi3", "pi4", "pi5", "jetson-nano", "jetson-orin-nano", "phone-kirin-970", "phone-snapdragon-855"),
    *("phone-snapdragon-8-gen-2", "laptop-celeron-n5105", "laptop-i7-2019", "laptop-m1", "pc-ryzen-5700g"),
)
DEVICES = (*HERE, *(f"{board}-1t" for board in BOARDS), "jetson-nano-gpu", "jetson-orin-nano-gpu", "pc-i7-13700k-16t")
QUICK = ("local-ort-1t", "pi4-1t", "pi5-1t")


def main() -> None:
    """Plans for every device, and tries every plan on every device."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet56", help="a network with a checkpoint, or digits_cnn")
    parser.add_argument(
        "--latency", type=float, help="the budget, as a ratio to the dense network; default: 0.6, quick 0.8"
    )
    parser.add_argument("--devices", default=",".join(DEVICES), help="devices, with commas between them")
    options = parser.parse_args()
    torch.set_num_threads(1)
    watch = Stopwatch()
    latency = options.latency or (0.8 if options.quick else 0.6)
    names = QUICK if options.quick else options.devices.split(",")
    network, curves, bypass = _estimated("digits_cnn" if options.quick else options.network, options)
    devices = {name: device(name) for name in names}
    plans, refused = _plans(network, curves, bypass, devices, latency)
    rows = [row for where in devices.values() for row in _tried(network, plans, where)]
    for row in rows:
        print(
            f"{row['plan_for']} on {row['device']} ({row['device_kind']}): x{1 / row['latency_ratio']:.2f}", flush=True
        )
    write_record(
        "plans_by_devices", options, headline(rows, devices), rows, refused=refused, seconds=round(watch.seconds)
    )


def headline(rows: Sequence[dict[str, Any]], devices: dict[str, Device]) -> dict[str, Any]:
    """How much longer a network takes that was planned for another device, or for MACs, than the device's own."""
    ratio = {(row["plan_for"], row["device"]): row["latency_ratio"] for row in rows}
    names = [d.name for d in devices.values()]
    own = {name: ratio[name, name] for name in names if (name, name) in ratio}
    others = [
        100 * (value / own[on] - 1) for (made, on), value in ratio.items() if on in own and made not in (on, "macs")
    ]
    macs = [100 * (ratio["macs", on] / own[on] - 1) for on in own if ("macs", on) in ratio]
    found: dict[str, Any] = {"devices": len(names)}
    for name, values in (("another_device", others), ("macs", macs)):
        if values:
            found |= {
                f"plan_for_{name}_slower_median_percent": round(float(np.median(values)), 1),
                f"plan_for_{name}_slower_worst_percent": round(max(values), 1),
            }
    return found


def _estimated(name: str, options: argparse.Namespace) -> tuple[Network, dict[str, ResponseCurve], dict[str, float]]:
    """A trained network, its response curves, and the effects of its blocks."""
    if name == "digits_cnn":
        source = load_source("digits")
        model: nn.Module = load_model(name, num_classes=10, image_shape=source.image_shape)
        train_digits(model, source, seed=0)
        normalization = Normalization.of(source.train)
    else:
        source = cifar10()
        model, normalization = trained(name)
    data = calibration(source, normalization, 64 if options.quick else 384, seed=0)
    network = wp.trace(model.eval(), next(iter(data))[0][:2])
    parts = split_images(list(as_batches(data, 1)))
    bypass = {name: e.effect for name, e in bypass_effects(network, *parts, seed=0).items()}
    return network, response_curves(network, *parts, seed=0), bypass


def _plans(
    network: Network,
    curves: dict[str, ResponseCurve],
    bypass: dict[str, float],
    devices: dict[str, Device],
    latency: float,
) -> tuple[dict[str, Plan], dict[str, str]]:
    """A plan per device that meets the budget there, and one for the same share of MACs; why others were refused."""

    def planned(priced: Network, target: Budget, constraints: Constraints | None) -> Plan:
        return allocate_curves(priced, curves, target, blocks=bypass, constraints=constraints)

    plans, refused = {"macs": allocate_curves(network, curves, Budget(macs=latency))}, {}
    budget = Budget(latency=latency)
    for name, where in devices.items():
        try:
            aim = on_device(network, budget, where, Constraints())
            if aim is not None:
                plans[where.name] = aim(planned, budget)
        except (BudgetError, WhypruneError) as error:
            refused[name] = str(error)
            print(f"{name}: {error}", flush=True)
    return plans, refused


def _tried(network: Network, plans: dict[str, Plan], where: Device) -> list[dict[str, Any]]:
    """All plans beside the dense network in one call."""
    removed = {f"p{i}": network.select(plan.units) for i, plan in enumerate(plans.values())}
    networks = {"dense": network.model, **{k: wp.remove(network, units) for k, units in removed.items()}}
    found = where(networks, inputs_for(where, network.example))
    dense = network.cost()
    return [
        {
            "plan_for": made,
            "device": where.name,
            "device_kind": where.kind,
            "latency_ratio": ratio.value,
            "latency_ratio_interval": ratio.interval,
            "blocks": list(plan.blocks),
            "macs_ratio": plan.macs / dense.macs,
            "params_ratio": plan.params / dense.params,
            "predicted_effect": plan.predicted,
        }
        for (made, plan), key in zip(plans.items(), removed, strict=True)
        for ratio in [measured_ratio(_pair(found, key), "latency")]
    ]


def _pair(found: Measurement, key: str) -> Measurement:
    """A measurement of the dense and one pruned network."""
    return Measurement(
        device=found.device,
        latency={"dense": found.latency["dense"], "pruned": found.latency[key]},
        samples_ms={"dense": found.samples_ms["dense"], "pruned": found.samples_ms[key]},
        machine=found.machine,
        kind=found.kind,
    )


if __name__ == "__main__":
    main()
