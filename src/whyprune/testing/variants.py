"""Networks in other ways that compute the same: units in another order, weights at another scale."""

import copy
from functools import cache

import torch
from torch import nn

from whyprune.structure.network import Network
from whyprune.structure.trace import trace
from whyprune.testing.planted import Case, Planted, case

FACTOR = 4.0
"""A power of two: scaling by it and back rounds nothing."""


def in_another_order(network: Network, seed: int = 3) -> tuple[nn.Module, dict[str, str]]:
    """A copy of a network's model with the units of every group in another order.

    Args:
        network: a traced network of which nothing is removed.
        seed: of the order.

    Returns:
        The model, and for every unit's name what the unit that stands there now was called.
    """
    generator = torch.Generator().manual_seed(seed)
    model, was = copy.deepcopy(network.model), dict[str, str]()
    tensors = model.state_dict()
    for group in network.groups:
        order = torch.randperm(len(group.units), generator=generator).tolist()
        was |= {unit.name: group.units[old].name for unit, old in zip(group.units, order, strict=True)}
        for tensor, axis in {(s.parameter, s.axis) for unit in group.units for s in unit.slices}:
            places = [
                [int(k) for s in unit.slices if (s.parameter, s.axis) == (tensor, axis) for k in s.indices]
                for unit in group.units
            ]
            to = torch.tensor([k for own in places for k in own])
            source = torch.tensor([k for old in order for k in places[old]])
            moved = tensors[tensor].index_select(axis, source)
            with torch.no_grad():
                tensors[tensor].index_copy_(axis, to, moved)
    return model, was


@cache
def reordered(images: int = 96) -> tuple[Case, dict[str, str]]:
    """The planted network with its units in another order, and what every unit was called."""
    base = case(1, images)
    model, was = in_another_order(base.network)
    return Case(trace(model, base.images[:3]), base.images, base.labels), was


@cache
def rescaled(images: int = 96) -> Case:
    """The planted network with the layer of its units times `FACTOR`, and the layer that reads them divided by it."""
    base = case(1, images)
    model = copy.deepcopy(base.network.model)
    assert isinstance(model, Planted)
    with torch.no_grad():
        for parameter in model.units.parameters():
            parameter.mul_(FACTOR)
        model.left.weight.div_(FACTOR)
    return Case(trace(model, base.images[:3]), base.images, base.labels)
