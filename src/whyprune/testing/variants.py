"""The planted network in other ways that compute the same: units in another order, weights at another scale."""

import copy
from functools import cache

import torch

from whyprune.structure.trace import trace
from whyprune.testing.planted import UNITS, Case, Planted, case

FACTOR = 4.0
"""A power of two: scaling by it and back rounds nothing."""
READ = 5
"""Units of the group `left`."""


@cache
def orders() -> dict[str, torch.Tensor]:
    """Group -> for every place in the reordered network the place in the original of the unit that is there."""
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randperm(size, generator=generator) for name, size in (("units", UNITS), ("left", READ))}


def original(name: str) -> str:
    """What a unit of the reordered network is called in the original."""
    group, _, index = name.partition(":")
    return f"{group}:{int(orders()[group][int(index)])}"


@cache
def reordered(images: int = 96) -> Case:
    """The same function with the units of both groups in another order."""
    base = case(1, images)
    model = _copy(base)
    units, left = orders()["units"], orders()["left"]
    with torch.no_grad():
        for parameter, axis, order in (
            (model.units.weight, 0, units),
            (model.units.bias, 0, units),
            (model.left.weight, 1, units),
            (model.left.weight, 0, left),
            (model.left.bias, 0, left),
            (model.head.weight, 1, left),
        ):
            assert parameter is not None
            parameter.copy_(parameter.index_select(axis, order))
    return Case(trace(model, base.images[:3]), base.images, base.labels)


@cache
def rescaled(images: int = 96) -> Case:
    """The same function: the layer of the planted units times `FACTOR`, the layer that reads them divided by it."""
    base = case(1, images)
    model = _copy(base)
    with torch.no_grad():
        for parameter, times in (
            (model.units.weight, FACTOR),
            (model.units.bias, FACTOR),
            (model.left.weight, 1 / FACTOR),
        ):
            assert parameter is not None
            parameter.mul_(times)
    return Case(trace(model, base.images[:3]), base.images, base.labels)


def _copy(base: Case) -> Planted:
    model = copy.deepcopy(base.network.model)
    assert isinstance(model, Planted)
    return model
