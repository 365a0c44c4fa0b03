"""The steps of the hardware: widths beyond which a layer's cost jumps, found from a table."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from whyprune.devices.base import Device, Measurement
from whyprune.devices.inputs import batch_size, inputs_for
from whyprune.devices.table.price import axes_of, multiple_for, stops_of
from whyprune.devices.table.rows import Row, TabulatedLayer, tabulated_layers
from whyprune.devices.table.table import LatencyTable
from whyprune.devices.table.timing import briefly
from whyprune.structure.network import Network

FREE = 0.03
"""A width for which a larger one takes at most this much longer is no good choice."""
STEPS = (64, 32, 16, 8, 4, 2)
AGREE = 0.75


@dataclass(frozen=True)
class LatencyCurve:
    """Milliseconds of a layer along one of its axes, the others whole.

    Attributes:
        layers: the operations that have this row; they differ in nothing but their names.
        dense: the row at full width.
        side: `inputs`, `outputs`, or `channels` where both are one axis.
        widths: channels on that side, ascending.
        ms: the time at each.
    """

    layers: tuple[str, ...]
    dense: Row
    side: str
    widths: tuple[int, ...]
    ms: tuple[float, ...]

    @property
    def efficient(self) -> tuple[int, ...]:
        """The widths that no larger one matches in time: those worth pruning to."""
        pairs = list(zip(self.widths, self.ms, strict=True))
        return tuple(w for w, t in pairs if all(larger > t * (1 + FREE) for other, larger in pairs if other > w))


def latency_curves(
    layers: Iterable[TabulatedLayer], table: LatencyTable, network: Network, multiple: int | None = None
) -> list[LatencyCurve]:
    """Every curve that a table knows of a network's layers; layers that are alike share one."""
    layers = list(layers)
    sizes = axes_of(network, layers)
    names: dict[tuple[Row, str], list[str]] = {}
    points: dict[tuple[Row, str], dict[int, float]] = {}
    for layer in layers:
        for axis in (a for a in layer.axes if a in sizes):
            step = multiple or multiple_for(sizes[axis])
            kept = [*range(step, sizes[axis], step), sizes[axis]]
            rows = [layer.row({axis: sizes[axis] - n}) for n in kept]
            moves = [any(getattr(row, s) != getattr(layer.dense, s) for row in rows) for s in ("inputs", "outputs")]
            side = "channels" if all(moves) else "inputs" if moves[0] else "outputs"
            names.setdefault((layer.dense, side), []).append(layer.name)
            known = points.setdefault((layer.dense, side), {})
            known.update({(r.inputs if side == "inputs" else r.outputs): table[r] for r in rows if r in table})
    return [
        LatencyCurve(tuple(names[key]), *key, tuple(sorted(known)), tuple(known[w] for w in sorted(known)))
        for key, known in points.items()
        if len(known) > 1
    ]


def step_of(curves: Sequence[LatencyCurve]) -> int:
    """The largest multiple that most efficient widths below the full one have in common; 1 where there is none."""
    widths = Counter(width for curve in curves for width in curve.efficient[:-1])
    total = sum(widths.values())
    for step in STEPS:
        if total and sum(n for width, n in widths.items() if width % step == 0) >= AGREE * total:
            return step
    return 1


def tabulate(
    network: Network, device: Device, *, multiple: int | None = None, progress: bool = False
) -> tuple[LatencyTable, list[LatencyCurve], Measurement]:
    """Measures a network on a device, and its layers at every stop of every axis.

    Args:
        network: a traced model.
        device: where.
        multiple: widths are measured at multiples of this; default: 4, 8 or more by the size of the axis.
        progress: show a progress bar.

    Returns:
        The table, its curves for this network, and the latency of the network, measured as "dense".
    """
    measured = briefly(device)({"dense": network.model}, inputs_for(device, network.example))
    table = LatencyTable.of(device, measured)
    layers = tabulated_layers(network, batch_size(device))
    sizes = axes_of(network, layers)
    multiples = {axis: multiple or multiple_for(size) for axis, size in sizes.items()}
    table.fill(stops_of(layers, sizes, multiples), progress=progress)
    return table, latency_curves(layers, table, network, multiple), measured
