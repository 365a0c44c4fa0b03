"""Groups that the user wants to go together: unit i of each becomes one unit."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from whyprune.errors import InputError
from whyprune.structure.axes import Axis
from whyprune.structure.labels import Labels
from whyprune.structure.units import Group, Slice, Unit

if TYPE_CHECKING:
    from whyprune.structure.network import Network


def tied(network: "Network", names: Sequence[str]) -> "Network":
    """The same network in which the groups named, or written by the modules named, lose the same channels.

    Raises:
        InputError: a name fits no group, or the groups have different numbers of units.
    """
    groups = [g for g in network.groups if any(g.written_by(name) for name in names)]
    for name in names:
        if not any(g.written_by(name) for g in groups):
            raise InputError(f"nothing to tie is named {name!r}: the groups are {[g.name for g in network.groups]}")
    widths = {g.name: len(g.units) for g in groups}
    if len(set(widths.values())) > 1:
        raise InputError(f"groups that go together need equally many units, these have {widths}")
    merged = _merged(groups)
    heirs = {u.label: kept.label for g in groups for u, kept in zip(g.units, merged.units, strict=True)}
    kept = tuple(merged if g is groups[0] else g for g in network.groups if g is groups[0] or g not in groups)
    return replace(
        network,
        groups=kept,
        readers=tuple(replace(r, labels=_renamed(r.labels, heirs)) for r in network.readers),
        loops=tuple(replace(r, labels=_renamed(r.labels, heirs)) for r in network.loops),
        written={node: _renamed(labels, heirs) for node, labels in network.written.items()},
        sites=tuple(replace(s, labels=_renamed(s.labels, heirs)) for s in network.sites),
        attributes=tuple(replace(a, labels=tuple(heirs.get(x, x) for x in a.labels)) for a in network.attributes),
        extents={n: tuple((d, _renamed(x, heirs)) for d, x in extent) for n, extent in network.extents.items()},
    )


def _merged(groups: Sequence[Group]) -> Group:
    first = groups[0]
    units = []
    for together in zip(*(g.units for g in groups), strict=True):
        marks = dict.fromkeys(mark for u in together for mark in u.marks)
        units.append(replace(together[0], slices=_joined(together), marks=tuple(marks)))
    axes = tuple((s.parameter, s.axis, len(s.indices)) for s in units[0].slices)
    writers = dict.fromkeys(w for g in groups for w in (*g.writers, g.name))
    return replace(first, axes=axes, units=tuple(units), writers=tuple(writers))


def _joined(units: Sequence[Unit]) -> tuple[Slice, ...]:
    """The slices of several units, those of one axis in one."""
    found: dict[Axis, list[int]] = {}
    for unit in units:
        for piece in unit.slices:
            found.setdefault((piece.parameter, piece.axis), []).extend(piece.indices)
    return tuple(Slice(name, axis, tuple(sorted(indices))) for (name, axis), indices in found.items())


def _renamed(labels: Labels, heirs: Mapping[int, int]) -> Labels:
    return np.array([heirs.get(x, x) for x in labels.tolist()], dtype=np.int64)
