"""What a network costs, dense or without some units: MACs, parameters, bytes.

MACs are multiply-accumulates of convolutions and linear layers for one sample; normalisation, activations and
additions are not counted, as is usual in the pruning literature.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn

from whyprune.structure.capture import Graph
from whyprune.structure.rules.base import bind, name_of, shape_of
from whyprune.structure.units import Group, Unit

Sizes = Mapping[tuple[str, int], int]


@dataclass(frozen=True)
class Cost:
    """Cost of one network; `bytes` is the size of its parameters and buffers in memory."""

    macs: int
    params: int
    bytes: int


@dataclass(frozen=True)
class CostModel:
    """Exact cost as a function of how many indices every axis keeps.

    Attributes:
        products: (parameter, places) per matrix product; MACs = places x product of the parameter's sizes.
        shapes: shape of every parameter and buffer.
        item_bytes: bytes of one number of each.
        trainable: which of them are parameters.
        fixed_macs: of products with a computed weight, whose channels are kept.
    """

    products: tuple[tuple[str, int], ...]
    shapes: dict[str, tuple[int, ...]]
    item_bytes: dict[str, int]
    trainable: frozenset[str]
    fixed_macs: int = 0

    def __call__(self, removed: Iterable[Unit] = ()) -> Cost:
        """Cost without the units in `removed`."""
        gone: dict[tuple[str, int], int] = {}
        for unit in removed:
            for piece in unit.slices:
                key = (piece.parameter, piece.axis)
                gone[key] = gone.get(key, 0) + len(piece.indices)
        return self.of_sizes(gone)

    def of_groups(self, counts: Mapping[Group, int]) -> Cost:
        """Cost when `counts[group]` units of each group are gone, whichever they are."""
        gone: dict[tuple[str, int], int] = {}
        for group, count in counts.items():
            for parameter, axis, per_unit in group.axes:
                gone[parameter, axis] = gone.get((parameter, axis), 0) + count * per_unit
        return self.of_sizes(gone)

    def of_sizes(self, gone: Sizes) -> Cost:
        """Cost when `gone[parameter, axis]` indices are removed."""
        numel = {
            name: int(np.prod([size - gone.get((name, axis), 0) for axis, size in enumerate(shape)], dtype=np.int64))
            for name, shape in self.shapes.items()
        }
        return Cost(
            macs=self.fixed_macs + sum(places * numel[name] for name, places in self.products),
            params=sum(count for name, count in numel.items() if name in self.trainable),
            bytes=sum(count * self.item_bytes[name] for name, count in numel.items()),
        )


def cost_model(model: nn.Module, graph: Graph) -> CostModel:
    """Reads the matrix products off the graph and the sizes off the model."""
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    products, fixed = [], 0
    for node in graph.operations:
        if name_of(node) in ("conv1d", "conv2d", "conv3d", "linear"):
            weight = bind(node)["weight"]
            if weight.name in graph.state_names:
                products.append((graph.state_names[weight.name], _places(node)))
            else:
                fixed += _places(node) * int(np.prod(shape_of(weight), dtype=np.int64))
    return CostModel(
        products=tuple(products),
        shapes={name: tuple(t.shape) for name, t in state.items()},
        item_bytes={name: t.element_size() for name, t in state.items()},
        trainable=frozenset(name for name, _ in model.named_parameters()),
        fixed_macs=fixed,
    )


def _places(node: fx.Node) -> int:
    """Output positions per sample: all output dimensions but the batch and the channels."""
    shape: list[Any] = list(shape_of(node))
    inner = shape[1:-1] if name_of(node) == "linear" else shape[2:]
    return int(np.prod([int(s) for s in inner], dtype=np.int64))


def marginal(model: CostModel, group: Group) -> NDArray[np.int64]:
    """(MACs, params) saved by removing one unit of a group from the dense network."""
    dense, without = model(), model.of_groups({group: 1})
    return np.array([dense.macs - without.macs, dense.params - without.params], dtype=np.int64)
