"""What a network costs, dense or without some units: MACs, parameters, bytes, and what prices add to that.

MACs are multiply-accumulates for one sample of convolutions, linear and recurrent layers, and products of tensors
(attention); normalisation, activations and additions are not counted, as is usual in the pruning literature.
Operations with weights that cannot be counted are named (`CostModel.uncounted`).
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn

from whyprune.structure.axes import Axis, Extent
from whyprune.structure.blocks import Block, operations_of, state_of
from whyprune.structure.capture import Graph
from whyprune.structure.labels import Labels
from whyprune.structure.operations import sizes
from whyprune.structure.products import Terms, terms_of, uncounted
from whyprune.structure.units import Group, Unit

Sizes = Mapping[Axis, int]


@dataclass(frozen=True)
class Cost:
    """Cost of one network; the last three are None unless the network is priced (`Network.priced`).

    Attributes:
        macs: multiply-accumulates for one sample.
        params: number of parameters.
        bytes: size of parameters and buffers in memory.
        latency: predicted, in ms, on the device and at the batch size of the price.
        memory: bytes of parameters, buffers and the most activations that live at once, at the price's batch size.
        energy: predicted, in mJ, on the device of the price.
    """

    macs: int
    params: int
    bytes: int
    latency: float | None = None
    memory: float | None = None
    energy: float | None = None


class Price(Protocol):
    """What a network costs in something that no formula of widths gives: time on a device, memory at work."""

    @property
    def kind(self) -> str:
        """The field of `Cost` that it fills."""
        ...

    def __call__(self, gone: Sizes) -> float:
        """The cost when `gone[parameter, axis]` indices are removed."""
        ...


@runtime_checkable
class Largest(Protocol):
    """A price that is the largest of many."""

    def pressure(self, gone: Sizes, limit: float) -> float:
        """The limit and what every one of them has above it, or the largest where none has."""
        ...


@dataclass(frozen=True)
class Product:
    """MACs of one operation: `fixed` times the size of every axis in `factors`, each scaled by times / divisor."""

    operation: str
    fixed: int
    factors: tuple[tuple[Axis, int, int], ...]


@dataclass(frozen=True)
class CostModel:
    """Exact cost as a function of how many indices every axis keeps.

    Attributes:
        products: the MACs of every operation that has any.
        shapes: shape of every parameter and buffer.
        item_bytes: bytes of one number of each.
        trainable: which of them are parameters.
        prices: further costs, of different kinds.
        blocks: residual blocks, which cost nothing once they are bypassed.
        uncounted: operations with weights whose MACs nobody can count, and where they are: not part of any cost.
    """

    products: tuple[Product, ...]
    shapes: dict[str, tuple[int, ...]]
    item_bytes: dict[str, int]
    trainable: frozenset[str]
    prices: tuple[Price, ...] = ()
    blocks: tuple[Block, ...] = ()
    uncounted: tuple[str, ...] = ()

    def __call__(self, removed: Iterable[Unit] = ()) -> Cost:
        """Cost without the units in `removed`."""
        gone: dict[Axis, int] = {}
        for unit in removed:
            for piece in unit.slices:
                key = (piece.parameter, piece.axis)
                gone[key] = gone.get(key, 0) + len(piece.indices)
        return self.of_sizes(gone)

    def of_groups(self, counts: Mapping[Group, int]) -> Cost:
        """Cost when `counts[group]` units of each group are gone, whichever they are."""
        gone: dict[Axis, int] = {}
        for group, count in counts.items():
            for parameter, axis, per_unit in group.axes:
                gone[parameter, axis] = gone.get((parameter, axis), 0) + count * per_unit
        return self.of_sizes(gone)

    def of_sizes(self, gone: Sizes) -> Cost:
        """Cost when `gone[parameter, axis]` indices are removed."""
        return Cost(
            macs=self.macs(gone),
            params=self.params(gone),
            bytes=self.bytes(gone),
            **{price.kind: price(gone) for price in self.prices},
        )

    def params(self, gone: Sizes) -> int:
        """Parameters when `gone[parameter, axis]` indices are removed."""
        return sum(count for name, count in self._numbers(gone) if name in self.trainable)

    def bytes(self, gone: Sizes) -> int:
        """Size of parameters and buffers when `gone[parameter, axis]` indices are removed."""
        return sum(count * self.item_bytes[name] for name, count in self._numbers(gone))

    def _numbers(self, gone: Sizes) -> Iterator[tuple[str, int]]:
        """Every parameter and buffer that is left, with how many numbers it holds."""
        bypassed = state_of(block for block in self.blocks if block.bypassed(gone))
        for name, shape in self.shapes.items():
            if name not in bypassed:
                yield name, math.prod([size - gone.get((name, axis), 0) for axis, size in enumerate(shape)])

    def amount(self, kind: str, gone: Sizes) -> float:
        """One kind of cost alone, which takes less time than all of them."""
        price = next((p for p in self.prices if p.kind == kind), None)
        if price is not None:
            return price(gone)
        formulas = {"macs": self.macs, "params": self.params, "bytes": self.bytes}
        return formulas[kind](gone)

    def pressure(self, kind: str, gone: Sizes, limit: float) -> float:
        """As `amount`; where a cost is the largest of many, the sum of what every one of them has above the limit.

        One removal alone may leave the largest as it was; this says whether it helps all the same.
        """
        price = next((p for p in self.prices if p.kind == kind), None)
        return price.pressure(gone, limit) if isinstance(price, Largest) else self.amount(kind, gone)

    def priced(self, prices: Sequence[Price]) -> "CostModel":
        """The same model with these prices, in place of any of their kinds."""
        kinds = {price.kind for price in prices}
        return replace(self, prices=(*(p for p in self.prices if p.kind not in kinds), *prices))

    def by_operation(self) -> Counter[str]:
        """Name of an operation -> its MACs in the dense network; operations without any are not in it."""
        dense = Counter[str]()
        for product in self.products:
            dense[product.operation] += self.of_product(product, {})
        return dense

    def macs(self, gone: Sizes, of: Collection[Axis] | None = None) -> int:
        """MACs when `gone[parameter, axis]` indices are removed; of the operations with one of these axes."""
        idle = operations_of(self.blocks, gone)
        running = (product for product in self.products if product.operation not in idle)
        wanted = (p for p in running if of is None or any(axis in of for axis, _, _ in p.factors))
        return sum(self.of_product(product, gone) for product in wanted)

    def of_product(self, product: Product, gone: Sizes) -> int:
        """MACs of one operation when `gone[parameter, axis]` indices are removed."""
        return sized(product, self.shapes, gone)


def sized(product: Product, shapes: Mapping[str, tuple[int, ...]], gone: Sizes) -> int:
    """A product of sizes when `gone[parameter, axis]` indices are removed from parameters of these shapes."""
    size = product.fixed
    for (name, axis), times, divisor in product.factors:
        size = size * ((shapes[name][axis] - gone.get((name, axis), 0)) * times // divisor)
    return size


def cost_model(
    model: nn.Module,
    graph: Graph,
    extent: Callable[[fx.Node], Extent],
    axis_of: Callable[[Labels], tuple[Axis, int, int] | None],
) -> CostModel:
    """Reads the matrix products off the graph and the sizes off the model.

    Args:
        model: the model.
        graph: its operations.
        extent: of a tensor, along which dimensions channels lie, with the class of every index.
        axis_of: of a vector of classes, the axis of a parameter that has the same ones: its size times the second
            number, divided by the third, is the vector's length.
    """
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    samples = graph.batch_size or 1
    return CostModel(
        products=tuple(
            product_of(n.name, terms, samples, extent, axis_of) for n in graph.operations for terms in terms_of(n)
        ),
        shapes={name: tuple(t.shape) for name, t in state.items()},
        item_bytes={name: t.element_size() for name, t in state.items()},
        trainable=frozenset(name for name, _ in model.named_parameters()),
        uncounted=uncounted(graph),
    )


def product_of(
    operation: str,
    terms: Terms,
    samples: int,
    extent: Callable[[fx.Node], Extent],
    axis_of: Callable[[Labels], tuple[Axis, int, int] | None],
) -> Product:
    """Sizes of tensors multiplied, per sample; those that can shrink become axes of parameters."""
    factors = []
    fixed = 1
    for tensor, dims in terms:
        known = dict(extent(tensor))
        for dim in dims:
            axis = axis_of(known[dim]) if dim in known else None
            if axis is None:
                fixed *= sizes(tensor)[dim]
            else:
                factors.append(axis)
    return Product(operation, max(fixed // samples, 1), tuple(factors))


def marginal(model: CostModel, group: Group) -> NDArray[np.int64]:
    """(MACs, params) saved by removing one unit of a group from the dense network."""
    dense, without = model(), model.of_groups({group: 1})
    return np.array([dense.macs - without.macs, dense.params - without.params], dtype=np.int64)
