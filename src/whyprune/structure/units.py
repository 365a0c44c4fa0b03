"""Units, groups and refusals: what may be removed, what hangs together, and what is kept whole and why."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from whyprune.structure.labels import Axes, LabelSpace


@dataclass(frozen=True)
class Slice:
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
    """

    name: str
    group: str
    index: int
    label: int
    slices: tuple[Slice, ...]

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
    """

    name: str
    axes: tuple[tuple[str, int, int], ...]
    units: tuple[Unit, ...]
    width: int

    def written_by(self, name: str) -> bool:
        """Whether `name` is this group's name, or a module that writes its channels or contains one that does."""
        writers = {parameter.rpartition(".")[0] for parameter, axis, _ in self.axes if axis == 0}
        return name == self.name or any(w == name or w.startswith(f"{name}.") for w in writers)

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
    space: LabelSpace, state: Mapping[str, Axes], first_writer: Mapping[int, str]
) -> tuple[tuple[Group, ...], tuple[Refusal, ...]]:
    """Reads units, groups and refusals off the united labels.

    Args:
        space: atoms after propagation.
        state: parameter or buffer name -> labels of its axes.
        first_writer: class representative -> parameter of the first layer that writes the channel.
    """
    members = _members(space, state)
    refusals, pinned = _refusals(space, members)
    by_axes: dict[tuple[tuple[str, int, int], ...], list[Unit]] = defaultdict(list)
    for root in sorted(members):
        if root in pinned or root not in first_writer:
            continue
        slices = tuple(Slice(p, a, tuple(i)) for (p, a), i in members[root].items())
        if whole := [s for s in slices if _is_whole(s, state)]:
            where, reason = whole[0].parameter, "these channels only go together, and nothing would be left"
            refusals.append(Refusal(where, reason, 1, tuple((s.parameter, s.axis) for s in slices)))
            continue
        home = next(s for s in slices if s.parameter == first_writer[root] and s.axis == 0)
        signature = tuple((s.parameter, s.axis, len(s.indices)) for s in slices)
        by_axes[signature].append(Unit("", home.parameter, home.indices[0], root, slices))
    return _groups(by_axes, state), tuple(refusals)


def _is_whole(piece: Slice, state: Mapping[str, Axes]) -> bool:
    labels = state[piece.parameter][piece.axis]
    return labels is not None and len(piece.indices) == len(labels)


def _members(space: LabelSpace, state: Mapping[str, Axes]) -> dict[int, dict[tuple[str, int], list[int]]]:
    members: dict[int, dict[tuple[str, int], list[int]]] = defaultdict(lambda: defaultdict(list))
    for name, axes in state.items():
        for axis, labels in enumerate(axes):
            if labels is not None:
                for index, root in enumerate(space.roots(labels).tolist()):
                    members[root][name, axis].append(index)
    return members


def _refusals(
    space: LabelSpace, members: Mapping[int, Mapping[tuple[str, int], list[int]]]
) -> tuple[list[Refusal], set[int]]:
    pinned: set[int] = set()
    refusals = []
    for pin in space.pins:
        roots = [r for r in dict.fromkeys(space.roots(pin.labels).tolist()) if r in members]
        axes = dict.fromkeys(key for root in roots for key in members[root])
        pinned.update(roots)
        if roots:
            refusals.append(Refusal(pin.where, pin.reason, len(roots), tuple(axes)))
    return list(dict.fromkeys(refusals)), pinned


def _groups(
    by_axes: Mapping[tuple[tuple[str, int, int], ...], list[Unit]], state: Mapping[str, Axes]
) -> tuple[Group, ...]:
    layers = [units[0].group.rpartition(".")[0] or units[0].group for units in by_axes.values()]
    repeated = Counter(layers)
    seen: Counter[str] = Counter()
    groups = []
    for layer, (axes, units) in zip(layers, by_axes.items(), strict=True):
        seen[layer] += 1
        name = layer if repeated[layer] == 1 else f"{layer}/{seen[layer]}"
        first = units[0].group
        named = sorted(
            (Unit(f"{name}:{u.index}", name, u.index, u.label, u.slices) for u in units),
            key=lambda u: u.index,
        )
        first_axis = state[first][0]
        groups.append(Group(name, axes, tuple(named), 0 if first_axis is None else len(first_axis)))
    return tuple(groups)


def removed_indices(units: Iterable[Unit]) -> dict[tuple[str, int], np.ndarray]:
    """(parameter, axis) -> sorted indices that go when `units` go."""
    gone: dict[tuple[str, int], set[int]] = defaultdict(set)
    for unit in units:
        for piece in unit.slices:
            gone[piece.parameter, piece.axis].update(piece.indices)
    return {key: np.array(sorted(indices), dtype=np.int64) for key, indices in gone.items()}
