"""Costs that add up: the parts of a sum, each a function of a few axes, so that a change asks for few of them again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, runtime_checkable

from whyprune.structure.axes import Axis
from whyprune.structure.blocks import Block
from whyprune.structure.cost import CostModel, Product, Sizes, sized


@dataclass(frozen=True)
class Part:
    """A summand of a cost; what it was is remembered.

    Attributes:
        axes: those that decide its value.
        of: the value when `gone[parameter, axis]` indices are removed.
    """

    axes: tuple[Axis, ...]
    of: Callable[[Sizes], float]
    _seen: dict[tuple[int, ...], float] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __call__(self, gone: Sizes) -> float:
        """The value when `gone[parameter, axis]` indices are removed."""
        key = tuple([gone.get(axis, 0) for axis in self.axes])
        found = self._seen.get(key)
        if found is None:
            found = self._seen[key] = self.of(gone)
        return found


@runtime_checkable
class Summed(Protocol):
    """A cost that the sum of its parts decides, rounded once (`math.fsum`), so that their order does not."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The summands."""
        ...

    def of_sum(self, total: float) -> float:
        """The cost when the parts add up to `total`."""
        ...


@dataclass(frozen=True)
class Sum:
    """The sum itself."""

    parts: tuple[Part, ...]

    def of_sum(self, total: float) -> float:
        """The cost when the parts add up to `total`."""
        return total


def summed(cost: CostModel, kind: str) -> Summed | None:
    """A kind of cost in parts; None for a price that says of none."""
    price = next((p for p in cost.prices if p.kind == kind), None)
    if price is None:
        return formula(cost, kind)
    return price if isinstance(price, Summed) else None


def formula(cost: CostModel, kind: str) -> Sum:
    """MACs by operation, `params` or `bytes` by parameter."""
    if kind == "macs":
        return Sum(
            tuple(_of_product(p, cost, [b for b in cost.blocks if p.operation in b.operations]) for p in cost.products)
        )
    each = dict.fromkeys(cost.trainable, 1) if kind == "params" else cost.item_bytes
    products = [Product(n, size, tuple(((n, a), 1, 1) for a in range(len(cost.shapes[n])))) for n, size in each.items()]
    return Sum(tuple(_of_product(p, cost, [b for b in cost.blocks if p.operation in b.state]) for p in products))


def part(axes: Sequence[Axis], of: Callable[[Sizes], float], blocks: Sequence[Block] = ()) -> Part:
    """A part that is nothing once one of these blocks, in which it lies, is bypassed."""
    if not blocks:
        return Part(tuple(axes), of)
    homes = (axis for block in blocks for axis, _ in block.axes)
    return Part(tuple(dict.fromkeys((*axes, *homes))), partial(_unless_bypassed, tuple(blocks), of))


def _unless_bypassed(blocks: tuple[Block, ...], of: Callable[[Sizes], float], gone: Sizes) -> float:
    return 0 if any(block.bypassed(gone) for block in blocks) else of(gone)


def _of_product(product: Product, cost: CostModel, blocks: Sequence[Block]) -> Part:
    axes = tuple(dict.fromkeys(axis for axis, _, _ in product.factors))
    return part(axes, partial(sized, product, cost.shapes), blocks)
