"""Units, groups and refusals: what may be removed, what hangs together, and what is kept whole and why."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from whyprune.structure.axes import Axis
from whyprune.structure.labels import LabelSpace, distinct

ParameterAtoms = Mapping[str, Mapping[int, Tensor]]
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
    home: Axis = ("", 0)

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
    axes: tuple[Axis, ...]

    def __str__(self) -> str:
        return f"{self.channels} channels kept at {self.where}: {self.reason}"


def derive(
    space: LabelSpace,
    state: ParameterAtoms,
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
    members = _Members.of(space, state)
    refusals, pinned = _refusals(space, members, writers)
    by_axes: dict[tuple[tuple[str, int, int], ...], list[Unit]] = defaultdict(list)
    for root, slices in members.slices(kept=set(writers) - pinned):
        if whole := next((s for s in slices if len(s.indices) == members.sizes[s.parameter, s.axis]), None):
            refusals.append(Refusal(whole.parameter, ONLY_TOGETHER, 1, tuple((s.parameter, s.axis) for s in slices)))
            continue
        home = _home(slices, writers[root])
        signature = tuple((s.parameter, s.axis, len(s.indices)) for s in slices)
        unit = Unit("", home.parameter, home.indices[0], root, slices, tuple(dict.fromkeys(marks.get(root, ()))))
        by_axes[signature].append(unit)
    return _groups(by_axes, members.sizes, writers), tuple(refusals)


def _home(slices: Sequence[Slice], writers: Sequence[str]) -> Slice:
    """The slice that names a unit: of the first layer that writes it, where it is one index if it is anywhere."""
    written = next((own for name in writers if (own := [s for s in slices if s.parameter == name])), list(slices)[:1])
    return min(written, key=lambda piece: len(piece.indices))


@dataclass(frozen=True)
class _Members:
    """The indices of every axis by class, in runs of one class and axis.

    Attributes:
        axes: all axes that have labels.
        sizes: how many indices each has.
        indices: indices of axes, those of one run together.
        runs: of every run its class, the number of its axis, and where in `indices` it starts; sorted by class.
    """

    axes: tuple[Axis, ...]
    sizes: dict[Axis, int]
    indices: list[int]
    runs: np.ndarray

    @classmethod
    def of(cls, space: LabelSpace, state: ParameterAtoms) -> "_Members":
        held = {(name, axis): labels for name, axes in state.items() for axis, labels in axes.items()}
        sizes = {key: len(labels) for key, labels in held.items()}
        lengths = list(sizes.values())
        roots = space.roots(torch.cat([*held.values(), torch.empty(0, dtype=torch.int64)])).numpy()
        numbers = np.repeat(np.arange(len(held)), lengths)
        order = np.lexsort((numbers, roots))  # stable: indices stay ascending
        classes, axes = roots[order], numbers[order]
        first = np.flatnonzero(np.r_[True, (np.diff(classes) != 0) | (np.diff(axes) != 0)][: len(order)])
        indices = np.concatenate([np.arange(n) for n in lengths]) if lengths else np.arange(0)
        return cls(tuple(held), sizes, indices[order].tolist(), np.stack([classes[first], axes[first], first], 1))

    def slices(self, kept: Collection[int]) -> list[tuple[int, tuple[Slice, ...]]]:
        """The classes among `kept`, ascending, each with its slices."""
        found: dict[int, list[Slice]] = {}
        ends = [*self.runs[1:, 2].tolist(), len(self.indices)][: len(self.runs)]
        for (root, axis, start), end in zip(self.runs.tolist(), ends, strict=True):
            if root in kept:
                name, number = self.axes[axis]
                found.setdefault(root, []).append(Slice(name, number, tuple(self.indices[start:end])))
        return [(root, tuple(slices)) for root, slices in found.items()]

    def axes_of(self, roots: Collection[int]) -> tuple[Axis, ...]:
        """The axes on which any of these classes lies."""
        mine = self.runs[np.isin(self.runs[:, 0], list(roots)), 1].tolist()
        return tuple(self.axes[axis] for axis in dict.fromkeys(mine))


def _refusals(space: LabelSpace, members: _Members, writers: Mapping[int, object]) -> tuple[list[Refusal], set[int]]:
    """What is pinned, once for every place and reason.

    Classes that nothing writes (positions, words, places of kernels) are no channels to refuse.
    """
    pinned: set[int] = set()
    told: dict[tuple[str, str], set[int]] = {}
    present = np.zeros(space.count, dtype=bool)
    present[members.runs[:, 0]] = True
    for pin in space.pins:
        roots = [root for root in distinct(space.roots(pin.labels)) if present[root]]
        pinned.update(roots)
        told.setdefault((pin.where, pin.reason), set()).update(r for r in roots if r in writers or pin.named)
    refusals = [Refusal(*why, len(known), members.axes_of(known)) for why, known in told.items() if known]
    return refusals, pinned


def _groups(
    by_axes: Mapping[tuple[tuple[str, int, int], ...], list[Unit]],
    sizes: Mapping[Axis, int],
    writers: Mapping[int, Sequence[str]],
) -> tuple[Group, ...]:
    layers = [units[0].group.rpartition(".")[0] or units[0].group for units in by_axes.values()]
    repeated = Counter(layers)
    seen: Counter[str] = Counter()
    groups = []
    for layer, (axes, units) in zip(layers, by_axes.items(), strict=True):
        seen[layer] += 1
        name = layer if repeated[layer] == 1 else f"{layer}/{seen[layer]}"
        home = _home(units[0].slices, [units[0].group])[:2]
        named = sorted((replace(u, name=f"{name}:{u.index}", group=name) for u in units), key=lambda u: u.index)
        modules = dict.fromkeys(p.rpartition(".")[0] for u in units for p in writers[u.label])
        groups.append(Group(name, axes, tuple(named), sizes[home], tuple(modules), home))
    return tuple(groups)


def removed_indices(units: Iterable[Unit]) -> dict[Axis, np.ndarray]:
    """(parameter, axis) -> sorted indices that go when `units` go."""
    gone: dict[Axis, set[int]] = defaultdict(set)
    for unit in units:
        for piece in unit.slices:
            gone[piece.parameter, piece.axis].update(piece.indices)
    return {key: np.array(sorted(indices), dtype=np.int64) for key, indices in gone.items()}
