"""Plans for other budgets that take as long on a device as a plan for latency: found by measuring."""

import copy
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

import whyprune as wp
from whyprune.devices import Device
from whyprune.devices.inputs import inputs_for
from whyprune.devices.table import briefly
from whyprune.errors import BudgetError
from whyprune.pipeline.device_budget import measured_ratio

STEPS = 7
NEAR = 0.02
STREAM = ("conv1", "layer2.0.conv2", "layer3.0.conv2")


def as_slow_as(
    target: float, build: Callable[[float], Any], ratio_of: Callable[[Any], float], steps: int = STEPS
) -> tuple[Any, float]:
    """What is built at a knob between 0 and 1 so that its measured ratio is nearest to the target, by bisection.

    Args:
        target: the measured ratio to reach.
        build: more of the network stays the nearer the knob is to 1.
        ratio_of: measures.
        steps: builds at most.
    """
    low, high, found = 0.0, 1.0, []
    for _ in range(steps):
        knob = (low + high) / 2
        try:
            built = build(knob)
        except BudgetError:
            low = knob
            continue
        ratio = ratio_of(built)
        found.append((abs(ratio / target - 1), built, ratio))
        if found[-1][0] <= NEAR:
            break
        low, high = (low, knob) if ratio > target else (knob, high)
    return min(found, key=lambda entry: entry[0])[1:]


def ratio_on(device: Device, network: wp.Network, pruned: nn.Module) -> float:
    """Pruned over dense latency, measured as `whyprune.pipeline.device_budget` does."""
    networks = {"dense": network.model, "pruned": pruned}
    return measured_ratio(briefly(device)(networks, inputs_for(device, network.example)), "latency").value


def macs_plan(
    network: wp.Network, plan: Callable[[float], wp.Plan], device: Device, target: float
) -> tuple[wp.Plan, float]:
    """The MACs-budget plan, as `plan` makes it for a share of the MACs, that takes as long."""

    def ratio(plan: wp.Plan) -> float:
        return ratio_on(device, network, wp.remove(network, plan.units))

    return as_slow_as(target, plan, ratio)


def torch_pruning(network: wp.Network, device: Device, target: float) -> tuple[nn.Module, float] | None:
    """Torch-Pruning's network (group L2 norm, global, channels inside blocks) that takes as long; None without it."""
    try:
        library = importlib.import_module("torch_pruning")
    except ImportError:
        return None

    def build(knob: float) -> nn.Module:
        model = copy.deepcopy(network.model)
        named = dict(model.named_modules())
        kept = [m for name, m in named.items() if isinstance(m, nn.Linear) or name.endswith("conv2") or name == "conv1"]
        pruner = library.pruner.BasePruner(
            model,
            network.example.args[0],
            importance=library.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=1 - knob,
            max_pruning_ratio=0.95,
            global_pruning=True,
            ignored_layers=kept,
        )
        pruner.step()
        return model.eval()

    return as_slow_as(target, build, lambda model: ratio_on(device, network, model))


def units_left_out(network: wp.Network, pruned: nn.Module) -> list[str]:
    """The units without which a network is the pruned one, whose channels were cut and not changed.

    Raises:
        ValueError: without them it is another one.
    """
    dense, left = network.model.state_dict(), pruned.state_dict()
    gone: list[str] = []
    for group in network.groups:
        name, axis = group.home
        rows, kept = dense[name].movedim(axis, 0), left[name].movedim(axis, 0)
        if rows[0].shape == kept[0].shape:
            found = (rows.flatten(1)[:, None] == kept.flatten(1)[None]).all(2).any(1)
            gone += [unit.name for unit in group.units if not found[unit.index]]
    again = wp.remove(network, gone).state_dict()
    if any(not torch.equal(value, left[name]) for name, value in again.items()):
        raise ValueError("the pruned network is not the dense one without some of its units")
    return gone


def macs_of(model: nn.Module, example: torch.Tensor) -> int:
    """Multiply-accumulates per sample of convolutions and linear layers, by running it."""
    total: list[int] = []

    def count(layer: nn.Module, _: Any, output: torch.Tensor) -> None:
        weight = layer.weight
        places = int(np.prod(output.shape[2:])) if output.dim() > 2 else 1
        total.append(places * weight.numel())

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.inference_mode():
        model(example[:1])
    for hook in hooks:
        hook.remove()
    return sum(total)
