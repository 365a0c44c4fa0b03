"""What a latency table has a row for: one convolution or linear layer at one width, and a network's layers as such."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import fx

from whyprune.structure.axes import Axis
from whyprune.structure.cost import Sizes
from whyprune.structure.network import Network
from whyprune.structure.operations import bind, name_of, sizes
from whyprune.structure.shapes import Dimension, Shape, tensor_shapes

Pair = tuple[int, int]


@dataclass(frozen=True, order=True)
class Row:
    """One operation at one width.

    Attributes:
        operation: `conv` or `linear`.
        inputs: channels that it reads.
        outputs: channels that it writes.
        kernel: rows and columns; (1, 1) for a linear layer.
        stride: rows and columns.
        padding: rows and columns, on either side.
        dilation: rows and columns.
        groups: of a convolution.
        size: rows and columns of its input; a linear layer over tokens has (tokens, 1).
        batch: samples at once.
    """

    operation: str
    inputs: int
    outputs: int
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    size: Pair = (1, 1)
    batch: int = 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates for the whole batch."""
        return prod((self.batch, *self.result, *self.kernel, self.inputs // self.groups, self.outputs))

    @property
    def result(self) -> Pair:
        """Rows and columns of its output."""
        sides = zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        high, wide = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides)
        return high, wide


@dataclass(frozen=True)
class TabulatedLayer:
    """A layer that a latency table has rows for, as a function of what is removed: which row it is then.

    Attributes:
        name: of the operation in the graph.
        dense: its row in the dense network.
        inputs: the channels that it reads.
        outputs: the channels that it writes.
        share: the channels that one group of a convolution reads.
    """

    name: str
    dense: Row
    inputs: Dimension
    outputs: Dimension
    share: Dimension

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes whose sizes decide its row."""
        dims = (self.inputs, self.outputs, self.share)
        return tuple(dict.fromkeys(d.axis for d in dims if d.axis is not None))

    def row(self, gone: Sizes) -> Row:
        """Its row when `gone[parameter, axis]` indices are removed."""
        inputs, outputs, dense = self.inputs(gone), self.outputs(gone), self.dense
        groups = max(inputs // max(self.share(gone), 1), 1)
        return Row(
            dense.operation,
            inputs,
            outputs,
            dense.kernel,
            dense.stride,
            dense.padding,
            dense.dilation,
            groups,
            dense.size,
            dense.batch,
        )


def tabulated_layers(network: Network, batch: int = 1) -> tuple[TabulatedLayer, ...]:
    """The network's convolutions over one or two dimensions and its linear layers, in execution order."""
    shapes = tensor_shapes(network)
    found = (_layer(node, shapes, batch) for node in network.graph.operations)
    return tuple(layer for layer in found if layer is not None)


def _layer(node: fx.Node, shapes: Mapping[fx.Node, Shape], batch: int) -> TabulatedLayer | None:
    name = name_of(node)
    if name not in ("conv1d", "conv2d", "linear"):
        return None
    bound = bind(node)
    data, weight = bound["input"], bound["weight"]
    if not all(n in shapes for n in (node, data, weight)):
        return None
    if name == "linear":
        tokens = prod(sizes(node)[:-1])
        dense = Row("linear", sizes(data)[-1], sizes(node)[-1], size=(tokens, 1), batch=batch)
        inputs = shapes[data].dimensions[-1]
        return TabulatedLayer(node.name, dense, inputs, shapes[node].dimensions[-1], inputs)
    found = _convolution(bound, sizes(data), sizes(node), batch)
    if found is None:
        return None
    return TabulatedLayer(
        node.name,
        found,
        shapes[data].dimensions[1],
        shapes[node].dimensions[1],
        shapes[weight].dimensions[1],
    )


def _convolution(bound: Mapping[str, Any], before: tuple[int, ...], after: tuple[int, ...], batch: int) -> Row | None:
    """Along one dimension it is a convolution of maps with one row."""
    if isinstance(bound["padding"], str):
        return None
    flat = len(before) == 3

    def pair(argument: str, one: int) -> Pair:
        given = bound[argument]
        values = [int(v) for v in (given if isinstance(given, list | tuple) else [given])]
        values = values * 2 if len(values) == 1 and not flat else values
        return (one, values[0]) if flat else (values[0], values[1])

    kernel = sizes(bound["weight"])[2:]
    return Row(
        "conv",
        before[1],
        after[1],
        kernel=(1, kernel[0]) if flat else (kernel[0], kernel[1]),
        stride=pair("stride", 1),
        padding=pair("padding", 0),
        dilation=pair("dilation", 1),
        groups=int(bound["groups"]),
        size=(1, before[2]) if flat else (before[2], before[3]),
        batch=batch,
    )
