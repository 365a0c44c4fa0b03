"""The price of a network's latency: the sum of its layers' rows, and a share of its time that no row explains.

A network takes longer than its rows: calls, additions, pools, changes of layout. Measured on whole pruned networks,
what is left hardly depends on widths; so it is one number, found from the dense network and corrected by each measured
pruned network (`corrected`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import fsum

from whyprune.devices.table.rows import Row, TabulatedLayer
from whyprune.devices.table.table import LatencyTable
from whyprune.results import DeviceCost
from whyprune.structure.axes import Axis
from whyprune.structure.blocks import Block
from whyprune.structure.cost import Sizes
from whyprune.structure.network import Network
from whyprune.structure.parts import Part, part

FINE, MIDDLE = 32, 128
STOPS = 16
"""About how many widths of a wide axis are measured."""
SMALLEST_SHARE, LARGEST_SHARE = 0.02, 4.0
LEAST_AT_FIRST = 0.5
"""The share of the rows before a pruned network was measured: a busy moment must not make a budget unreachable."""


def multiple_for(size: int) -> int:
    """Widths of an axis of this size are measured at multiples of this many channels."""
    if size <= FINE:
        return 4
    return 8 if size <= MIDDLE else max(8, size // STOPS // 8 * 8)


@dataclass(frozen=True)
class LatencyPrice:
    """A `Price`: dense x (1 - share x (1 - rows / dense rows)).

    Attributes:
        layers: those that have rows.
        times: row -> milliseconds; with every layer's row at each stop of each of its axes, the others whole.
        sizes: axis -> its size in the dense network, of every axis that can shrink.
        multiples: axis -> widths are measured at multiples of this.
        dense: what the dense network was measured to cost.
        share: of the dense cost, as much as scales with the rows.
        kind: `latency`, or `energy`, which is taken to be spent in proportion.
        blocks: residual blocks, whose layers take no time once they are bypassed.
    """

    layers: tuple[TabulatedLayer, ...]
    times: Mapping[Row, float]
    sizes: Mapping[Axis, int]
    multiples: Mapping[Axis, int]
    dense: float
    share: float
    kind: DeviceCost = "latency"
    blocks: tuple[Block, ...] = ()

    def __call__(self, gone: Sizes) -> float:
        """The cost when `gone[parameter, axis]` indices are removed."""
        return self.of_sum(self.rows_ms(gone))

    def rows_ratio(self, gone: Sizes) -> float:
        """The sum of all rows over that of the dense network."""
        return self.rows_ms(gone) / self._whole

    def rows_ms(self, gone: Sizes) -> float:
        """The sum of all rows."""
        return fsum(row(gone) for row in self.parts)

    def of_sum(self, total: float) -> float:
        """The cost when the rows add up to `total` milliseconds."""
        return self.dense * max(1 - self.share * (1 - total / self._whole), 1e-3)

    def corrected(self, gone: Sizes, ratio: float, *, weight: float = 1.0) -> "LatencyPrice":
        """The price that gives the dense network's cost and, without these indices, the measured ratio of it.

        With a smaller `weight` it goes only that part of the way.
        """
        saved = 1 - self.rows_ratio(gone)
        share = self.share + weight * ((1 - ratio) / saved - self.share) if saved > 0 else self.share
        return replace(self, share=min(max(share, SMALLEST_SHARE), LARGEST_SHARE))

    def _layer_ms(self, layer: TabulatedLayer, axes: Sequence[Axis], gone: Sizes) -> float:
        """One layer: measured as it is, or at the next stop, or as if its axes took their shares one by one."""
        found = self.times.get(layer.row(gone))
        if found is not None:
            return found
        up = {axis: self._stop(axis, gone.get(axis, 0)) for axis in axes}
        found = self.times.get(layer.row(up))
        if found is not None:
            return found
        dense = self.times[layer.dense]
        for axis, lost in up.items():
            found = self.times[layer.row({axis: lost})] / dense * (dense if found is None else found)
        return dense if found is None else found

    def _stop(self, axis: Axis, lost: int) -> int:
        """As much less gone that the width is a stop."""
        size, multiple = self.sizes[axis], self.multiples[axis]
        kept = size - lost
        return size - min(kept + -kept % multiple, size)

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Every layer's row, as a function of its axes that can shrink."""
        found = []
        for layer in self.layers:
            axes = tuple(a for a in layer.axes if a in self.sizes)
            around = [block for block in self.blocks if layer.name in block.operations]
            found.append(part(axes, partial(self._layer_ms, layer, axes), around))
        return tuple(found)

    @cached_property
    def _whole(self) -> float:
        return self.rows_ms({})


def axes_of(network: Network, layers: Iterable[TabulatedLayer]) -> dict[Axis, int]:
    """Axis -> its size, of every axis of the layers that loses channels with some group."""
    can = {(parameter, axis) for group in network.groups for parameter, axis, _ in group.axes}
    return {(p, a): network.cost.shapes[p][a] for layer in layers for p, a in layer.axes if (p, a) in can}


def stops_of(layers: Iterable[TabulatedLayer], sizes: Mapping[Axis, int], multiples: Mapping[Axis, int]) -> list[Row]:
    """Every layer's row in the dense network and at each stop of each of its axes, the others whole."""
    rows = []
    for layer in layers:
        rows.append(layer.dense)
        for axis in layer.axes:
            if axis in sizes:
                stops = range(multiples[axis], sizes[axis], multiples[axis])
                rows += [layer.row({axis: sizes[axis] - kept}) for kept in stops]
    return list(dict.fromkeys(rows))


def latency_price(
    network: Network,
    table: LatencyTable,
    layers: Sequence[TabulatedLayer],
    dense: float,
    *,
    fastest: float | None = None,
    kind: DeviceCost = "latency",
    multiple: int | None = None,
    progress: bool = False,
) -> LatencyPrice:
    """Measures what is missing and prices a network.

    Args:
        network: the traced model.
        table: of the device.
        layers: `tabulated_layers` of the network at the device's batch size.
        dense: what the dense network was measured to cost there, in ms or mJ.
        fastest: what the dense network took in a good moment, as rows are timed, to tell what share of it the rows are;
            default: all.
        kind: `latency` or `energy`.
        multiple: widths are measured at multiples of this; default: 4, 8 or more by the size of the axis.
        progress: show a progress bar.
    """
    sizes = axes_of(network, layers)
    multiples = {axis: multiple or multiple_for(size) for axis, size in sizes.items()}
    table.fill(stops_of(layers, sizes, multiples), progress=progress)
    price = LatencyPrice(tuple(layers), table.rows, sizes, multiples, dense, 1.0, kind, network.cost.blocks)
    if fastest is None:
        return price
    return replace(price, share=min(max(price.rows_ms({}) / fastest, LEAST_AT_FIRST), 1.0))
