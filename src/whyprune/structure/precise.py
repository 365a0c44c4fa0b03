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
    example = network.example
    constants = {name: _double(t) for name, t in network.graph.constants.items()}
    model = duplicate(network.model).double()
    batch = Batch(pytree.tree_map(_double, example.args), pytree.tree_map(_double, example.kwargs))
    with torch.no_grad():
        graph = replace(network.graph, constants=constants, returned=batch.call(model))
    return replace(network, model=model, example=batch, graph=graph)


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
