"""Copies of units: where they belong on every axis, what follows, and what their weights are (see `widen`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from whyprune.structure.axes import Axis
from whyprune.structure.network import Network
from whyprune.structure.remove import AttributeValue, changed
from whyprune.structure.summed import input_axes
from whyprune.structure.widening import Order, grown

Copies = Mapping[int, int]
"""The label of a unit -> how many copies it gets."""


@dataclass(frozen=True)
class Placing:
    """An axis after widening: the index that every index copies, the number of the copy, and the unit's label or -1."""

    order: Order
    number: Order
    label: Order


def placings(network: Network, copies: Copies) -> dict[Axis, Placing]:
    """Every stretch of an axis that belongs to a unit is followed by its copies."""
    owners: dict[Axis, dict[int, int]] = {}
    for unit in network.units:
        if copies.get(unit.label, 0):
            for parameter, axis, indices in unit.slices:
                owners.setdefault((parameter, axis), {}).update(dict.fromkeys(indices, unit.label))
    return {key: _placing(network.cost.shapes[key[0]][key[1]], owner, copies) for key, owner in owners.items()}


def _placing(size: int, owner: Mapping[int, int], copies: Copies) -> Placing:
    rows: list[tuple[int, int, int]] = []
    start = 0
    while start < size:
        label, end = owner.get(start, -1), start + 1
        while label != -1 and end < size and owner.get(end) == label:
            end += 1
        rows += [(index, number, label) for number in range(1 + copies.get(label, 0)) for index in range(start, end)]
        start = end
    order, number, label_of = np.array(rows, dtype=np.int64).T
    return Placing(order, number, label_of)


def attribute_changes(network: Network, copies: Copies) -> list[AttributeValue]:
    """(module, attribute, place, new value) of every integer in user modules that counts copied channels."""
    gained = [(rule, sum(copies.get(label, 0) for label in rule.labels)) for rule in network.attributes]
    return [(r.module, r.attribute, r.place, r.value + count) for r, count in gained if count]


def spread(network: Network, model: nn.Module, copies: Copies, rng: np.random.Generator) -> nn.Module:
    """The model with copies of units; weights that read them are divided among the copies, in uneven parts."""
    orders, summed = placings(network, copies), input_axes(network)
    wider = grown(model, {key: placing.order for key, placing in orders.items()}, attribute_changes(network, copies))
    parts = {label: _parts(1 + count, rng) for label, count in copies.items() if count}
    parts[-1] = np.ones(1)
    factors = {
        key: np.array([parts[label][number] for label, number in zip(p.label, p.number, strict=True)])
        for key, p in orders.items()
        if key in summed
    }
    return changed(wider, factors, _scaled)


def _parts(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    drawn = rng.uniform(0.5, 1.5, count)
    parts: NDArray[np.float64] = drawn / drawn.sum()
    return parts


def _scaled(tensor: Tensor, factors: Mapping[int, NDArray[Any]]) -> Tensor:
    for axis, factor in factors.items():
        shape = [-1 if dim == axis else 1 for dim in range(tensor.dim())]
        tensor = tensor * torch.as_tensor(factor, device=tensor.device).to(tensor.dtype).reshape(shape)
    return tensor


def redraw(network: Network, model: nn.Module, orders: Mapping[Axis, Placing], rng: np.random.Generator) -> None:
    """Draws the new numbers of weights from their old ones, in place, as `widen` says."""
    before, summed = dict(network.model.named_parameters()), input_axes(network)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mine = {axis: orders[name, axis] for axis in range(parameter.dim()) if (name, axis) in orders}
            if parameter.dim() < 2 or not mine:
                continue
            value = before[name].detach()
            new = torch.zeros((), dtype=torch.bool)
            scale = 1.0
            for axis, placing in mine.items():
                value = value.index_select(axis, torch.as_tensor(placing.order, device=value.device))
                shape = [-1 if dim == axis else 1 for dim in range(parameter.dim())]
                new = new | torch.as_tensor(placing.number > 0).reshape(shape)
                if (name, axis) in summed:
                    scale *= (before[name].shape[axis] / parameter.shape[axis]) ** 0.5
            drawn = torch.as_tensor(rng.integers(before[name].numel(), size=tuple(value.shape)), device=value.device)
            old = before[name].detach().flatten()
            parameter.copy_(torch.where(new.to(value.device), old[drawn], value) * scale)
