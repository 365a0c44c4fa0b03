"""Sizes of all tensors as functions of what is removed: a dimension along which channels lie shrinks with its axis."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from torch import Tensor, fx

from whyprune.structure.axes import Axis
from whyprune.structure.cost import Sizes
from whyprune.structure.network import Network
from whyprune.structure.operations import sizes


@dataclass(frozen=True)
class Dimension:
    """One dimension of a tensor: `size`, less what goes from `axis`, of whose `whole` indices each counts equally.

    Attributes:
        size: in the dense network.
        axis: the parameter and axis that it shrinks with; None where it does not shrink.
        whole: size of that axis in the dense network.
    """

    size: int
    axis: Axis | None = None
    whole: int = 1

    def __call__(self, gone: Sizes) -> int:
        """The size when `gone[parameter, axis]` indices are removed."""
        lost = 0 if self.axis is None else gone.get(self.axis, 0)
        return self.size - lost * self.size // self.whole if lost else self.size


@dataclass(frozen=True)
class Shape:
    """A tensor of one sample: its dimensions and the bytes of one number; the first dimension is the batch."""

    dimensions: tuple[Dimension, ...]
    item_bytes: int

    def __call__(self, gone: Sizes) -> tuple[int, ...]:
        """Sizes when so many indices are removed."""
        return tuple(dimension(gone) for dimension in self.dimensions)

    def bytes(self, gone: Sizes) -> int:
        """Bytes of the whole tensor."""
        return prod(self(gone)) * self.item_bytes


def tensor_shapes(network: Network) -> dict[fx.Node, Shape]:
    """The shape of every node that is one tensor."""
    found = {}
    for node in network.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, Tensor):
            known = {dim: network.axis_of(labels) for dim, labels in network.extents.get(node, ())}
            dims = [_dimension(n, known.get(dim), network.cost.shapes) for dim, n in enumerate(sizes(node))]
            found[node] = Shape(tuple(dims), value.element_size())
    return found


def _dimension(size: int, axis: tuple[Axis, int, int] | None, parameters: Mapping[str, tuple[int, ...]]) -> Dimension:
    if axis is None:
        return Dimension(size)
    (name, place), _, _ = axis
    return Dimension(size, (name, place), parameters[name][place])
