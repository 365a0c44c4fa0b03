"""The same network in double precision: tells a wrong result from rounding that a deep network has amplified."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from whyprune.data.batches import Batch
from whyprune.structure.copies import duplicate
from whyprune.structure.network import Network


def in_double(network: Network) -> Network:
    """A copy with parameters, constants and example inputs in double precision."""
    constants = {name: _double(t) for name, t in network.graph.constants.items()}
    model = duplicate(network.model).double()
    batch = doubled(network.example)
    with torch.no_grad():
        graph = replace(network.graph, constants=constants, returned=batch.call(model))
    return replace(network, model=model, example=batch, graph=graph)


def doubled(batch: Batch) -> Batch:
    """The batch with its floats in double precision."""
    return Batch(pytree.tree_map(_double, batch.args), pytree.tree_map(_double, batch.kwargs), batch.labels)


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
