"""Units, groups and refusals: what may be removed, what hangs together, and what is kept whole and why."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from torch import Tensor

from whyprune.structure.labels import LabelSpace, distinct

State = Mapping[str, Mapping[int, Tensor]]
"""Parameter or buffer name -> axis -> the atom of every index."""


ONLY_TOGETHER = "these channels only go together, and nothing would be left"


class Slice(NamedTuple):
    """Some indices of one axis of one parameter or buffer."""

    parameter: str
    axis: int
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Unit:
    """The smallest set of coupled slices that must go together.

    Attributes:
        name: `group:index`, the index being that of the channel in the group's first axis.
        group: the group's name.
        index: the channel in the group's first axis.
        label: the representative atom of the unit's class.
        slices: every slice of every parameter that goes with it.
        marks: operations whose statistics run over this channel: without it they change by nature, so that removing
            it is not the same as setting it to zero.
    """

    name: str
    group: str
    index: int
    label: int
    slices: tuple[Slice, ...]
    marks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Unit({self.name})"


@dataclass(frozen=True)
class Group:
    """Units that share one set of axes.

    Attributes:
        name: the layer that first writes these channels.
        axes: (parameter, axis, indices per unit) of every coupled axis.
        units: the removable units, in the order of the first axis.
        width: how many channels the group's first axis has, kept ones of other groups included.
        writers: the modules that write these channels.
        home: the parameter and axis that count the units' indices and the width.
    """

    name: str
    axes: tuple[tuple[str, int, int], ...]
    units: tuple[Unit, ...]
    width: int
    writers: tuple[str, ...] = ()
    home: tuple[str, int] = ("", 0)

    def written_by(self, name: str) -> bool:
        """Whether `name` is this group's name, or a module that writes its channels or contains one that does."""
        return name == self.name or any(w == name or w.startswith(f"{name}.") for w in self.writers)

    def __repr__(self) -> str:
        return f"Group({self.name}: {len(self.units)} of {self.width} channels)"


@dataclass(frozen=True)
class Refusal:
    """Channels that are kept whole: where in the user's code, why, and how many."""

    where: str
    reason: str
    channels: int
    axes: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return f"{self.channels} channels kept at {self.where}: {self.reason}"


def derive(
    space: LabelSpace,
    state: State,
    writers: Mapping[int, Sequence[str]],
    marks: Mapping[int, Sequence[str]],
) -> tuple[tuple[Group, ...], tuple[Refusal, ...]]:
    """Reads units, groups and refusals off the united labels.

    Args:
        space: atoms after propagation.
        state: parameter or buffer name -> axis -> atoms.
        writers: class representative -> parameters of the layers that write the channel, in execution order.
        marks: class representative -> operations whose statistics run over the channel.
    """
    members = _members(space, state)
    refusals, pinned = _refusals(space, members, writers)
    sizes = {(name, axis): len(labels) for name, axes in state.items() for axis, labels in axes.items()}
    by_axes: dict[tuple[tuple[str, int, int], ...], list[Unit]] = defaultdict(list)
    for root in sorted(r for r in members if r not in pinned and r in writers):
        own = members[root]
        if whole := next((key for key, indices in own.items() if len(indices) == sizes[key]), None):
            refusals.append(Refusal(whole[0], ONLY_TOGETHER, 1, tuple(own)))
            continue
        slices = tuple(Slice(name, axis, tuple(indices)) for (name, axis), indices in own.items())
        home = _home(slices, writers[root])
        signature = tuple((name, axis, len(indices)) for (name, axis), indices in own.items())
        unit = Unit("", home.parameter, home.indices[0], root, slices, tuple(dict.fromkeys(marks.get(root, ()))))
        by_axes[signature].append(unit)
    return _groups(by_axes, sizes, writers), tuple(refusals)


def _home(slices: Sequence[Slice], writers: Sequence[str]) -> Slice:
    """The slice that names a unit: of the first layer that writes it."""
    written = [s for name in writers for s in slices if s.parameter == name]
    return (written or list(slices))[0]


def _members(space: LabelSpace, state: State) -> dict[int, dict[tuple[str, int], list[int]]]:
    """Class -> the indices of every axis that belong to it."""
    members: dict[int, dict[tuple[str, int], list[int]]] = defaultdict(dict)
    for name, axes in state.items():
        for axis, labels in axes.items():
            for index, root in enumerate(space.roots(labels).tolist()):
                members[root].setdefault((name, axis), []).append(index)
    return members


def _refusals(
    space: LabelSpace, members: Mapping[int, Mapping[tuple[str, int], list[int]]], writers: Mapping[int, object]
) -> tuple[list[Refusal], set[int]]:
    """What is pinned. Classes that nothing writes (positions, words, kernels' places) are no channels to refuse."""
    pinned: set[int] = set()
    refusals = []
    for pin in space.pins:
        roots = [r for r in distinct(space.roots(pin.labels)) if r in members]
        pinned.update(roots)
        known = [r for r in roots if r in writers or pin.named]
        axes = dict.fromkeys(key for root in known for key in members[root])
        if known:
            refusals.append(Refusal(pin.where, pin.reason, len(known), tuple(axes)))
    return list(dict.fromkeys(refusals)), pinned


def _groups(
    by_axes: Mapping[tuple[tuple[str, int, int], ...], list[Unit]],
    sizes: Mapping[tuple[str, int], int],
    writers: Mapping[int, Sequence[str]],
) -> tuple[Group, ...]:
    layers = [units[0].group.rpartition(".")[0] or units[0].group for units in by_axes.values()]
    repeated = Counter(layers)
    seen: Counter[str] = Counter()
    groups = []
    for layer, (axes, units) in zip(layers, by_axes.items(), strict=True):
        seen[layer] += 1
        name = layer if repeated[layer] == 1 else f"{layer}/{seen[layer]}"
        home = next((s.parameter, s.axis) for s in units[0].slices if s.parameter == units[0].group)
        named = sorted((replace(u, name=f"{name}:{u.index}", group=name) for u in units), key=lambda u: u.index)
        modules = dict.fromkeys(p.rpartition(".")[0] for u in units for p in writers[u.label])
        groups.append(Group(name, axes, tuple(named), sizes[home], tuple(modules), home))
    return tuple(groups)


def removed_indices(units: Iterable[Unit]) -> dict[tuple[str, int], np.ndarray]:
    """(parameter, axis) -> sorted indices that go when `units` go."""
    gone: dict[tuple[str, int], set[int]] = defaultdict(set)
    for unit in units:
        for piece in unit.slices:
            gone[piece.parameter, piece.axis].update(piece.indices)
    return {key: np.array(sorted(indices), dtype=np.int64) for key, indices in gone.items()}
