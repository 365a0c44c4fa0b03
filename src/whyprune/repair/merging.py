"""Merging: what a removed unit gave its readers is moved onto the unit that stays and is most like it.

Wu et al., Applied Sciences 2022, keep one filter of a cluster; that the others' outgoing weights are added to it is an
extension [I], and so is all that follows. A reader of unit u with maps m_u (each image, each place) loses W_u * m_u. Of
the units k of the same group that stay, the one whose maps explain most of m_u takes it over:

    a = <m_u, m_k> / <m_k, m_k>,     k = argmax <m_u, m_k>^2 / <m_k, m_k>,     W_k <- W_k + a W_u

so exactly one column of a reader changes for each removed unit, and where m_u = a m_k, as for copies and for copies of
another scale, the reader gets what it got before, borders included. Maps are those of the dense network; tensors that
are read are looked at one by one. There are no labels and no gradients. `refit` moves every column at once and can do
more; merging keeps the trained weights, and needs a pair of numbers for every two units.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from whyprune.data.batches import Batch, split_images
from whyprune.effects.outcomes import Outcome
from whyprune.errors import InputError
from whyprune.repair.coverage import Unrefitted
from whyprune.repair.obstacles import PRODUCTS, RECURRENT, obstacle, sources
from whyprune.repair.refit import no_worse
from whyprune.repair.rows import layout_of
from whyprune.repair.targets import unwritable
from whyprune.repair.writeback import write_direction_and_length
from whyprune.structure.copies import duplicate
from whyprune.structure.entry import entered
from whyprune.structure.fold import norm_scale
from whyprune.structure.network import Reader
from whyprune.structure.operations import AFFINE, bind, name_of, shape_of, where
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.units import Unit

ROWS_BYTES = 64 * 2**20
"""Of the rows in double precision that are looked at together."""


@dataclass(frozen=True)
class Heir:
    """Who takes over a removed unit in one tensor that is read.

    Attributes:
        removed: the unit.
        kept: the unit of its group that takes it over.
        factor: by least squares, what the kept unit's maps are multiplied by to come closest to the removed one's.
        explained: the share of the removed unit's energy that it then has, between 0 and 1.
    """

    removed: Unit
    kept: Unit
    factor: float
    explained: float


def merge(state: State, data: Iterable[Any], *, outcome: Outcome | str | None = None) -> State:
    """Moves what every removed unit gave its readers onto the unit of its group that is most like it.

    What cannot be moved stays removed (`unmerged` names it).

    Args:
        state: the network as it is now; its module is not changed.
        data: batches; labels only if the outcome needs them. A third of the images, at most 128, is kept apart.
        outcome: what must not get worse on the images kept apart (default `LogitShift`).

    Returns:
        The state with a merged copy, or an unchanged copy if the outcome on images that no factor was fitted on would
        have become worse.

    Raises:
        InputError: fewer than six images.
    """
    state = State.of(state)
    batches = list(entered(data, state.network))
    if not batches:
        raise InputError("there is no data to merge with: give a few hundred unlabelled images")
    fit, guard = split_images(batches)
    return no_worse(state, merged(state, heirs(state, fit)), guard, outcome)


def heirs(state: State, batches: Iterable[Batch]) -> dict[fx.Node, list[Heir]]:
    """Tensor that is read -> who takes over each removed unit; none for a unit that is zero on all images.

    Args:
        state: its removed units have heirs among those that stay; maps are those of the original.
        batches: images.
    """
    dense = Replay(state.network)
    cases = [case for reader in _tensors(state) for case in _cases(state, reader)]
    for batch in batches:
        values = dense.run(batch, keep={case.reader.data for case in cases})
        for case in cases:
            case.add(values[case.reader.data])
    found: dict[fx.Node, list[Heir]] = {}
    for case in cases:
        found.setdefault(case.reader.data, []).extend(case.heirs())
    return found


def merged(state: State, found: dict[fx.Node, list[Heir]]) -> State:
    """The state with a module in which heirs carry what removed units gave.

    Args:
        state: the network as cut; its module is not changed.
        found: as `heirs` gives it.
    """
    dense, pruned = Replay(state.network), Replay.of(state)
    result = duplicate(state.model)
    for reader in pruned.network.readers:
        own = found.get(reader.data, [])
        if own and _why_not(pruned, reader) is None:
            weight = _with_columns(dense, pruned, reader, own)
            if weight is not None:
                _write(pruned, result, reader.node, weight)
    return state.with_model(result)


def unmerged(state: State) -> tuple[Unrefitted, ...]:
    """The layers that read units which are gone, and into which nothing can be merged."""
    pruned = Replay.of(state)
    found = {}
    for reader in pruned.readers(state.removed):
        if name_of(reader.node) in (*AFFINE, *RECURRENT, *PRODUCTS):
            reason = _why_not(pruned, reader)
            if reason is not None:
                found[where(reader.node), reason] = Unrefitted(where(reader.node), reason)
    for reader in pruned.loops(state.removed):
        reason = obstacle(reader.node) or "it reads its own units"
        found[where(reader.node), reason] = Unrefitted(where(reader.node), reason)
    return tuple(found.values())


def _why_not(pruned: Replay, reader: Reader) -> str | None:
    """Why nothing can be merged into a reader, in words that go on from its name; None where it can."""
    found = obstacle(reader.node)
    return unwritable(pruned, reader.node, ("weight",)) if found is None else found


@dataclass
class _Case:
    """The units of one group in one tensor.

    Attributes:
        reader: one of those that see the tensor.
        gone: units that are removed.
        stay: those that are not.
        places: where the channels of each lie in the dense tensor, (gone + stay, channels per unit).
    """

    reader: Reader
    gone: Sequence[Unit]
    stay: Sequence[Unit]
    places: Tensor
    products: Tensor
    energy: Tensor

    def add(self, value: Tensor) -> None:
        """Adds the products of the maps of some images."""
        rows = value.detach().movedim(self.reader.dim, -1).flatten(0, -2)
        size = max(1, ROWS_BYTES // (8 * self.places.numel()))
        for part in torch.split(rows, size):
            maps = part[:, self.places.flatten().to(part.device)].double().cpu()
            units = maps.reshape(len(part), *self.places.shape).transpose(1, 2).flatten(0, 1)
            self.energy += units.square().sum(dim=0)
            self.products += units[:, : len(self.gone)].mT @ units[:, len(self.gone) :]

    def heirs(self) -> list[Heir]:
        """The best one for every removed unit that is not zero everywhere."""
        own, others = self.energy[: len(self.gone)], self.energy[len(self.gone) :]
        safe = torch.where(others > 0, others, torch.ones_like(others))
        gain = torch.where(others > 0, self.products.square() / safe, torch.zeros_like(self.products))
        found = []
        for k, best in enumerate(gain.argmax(dim=1).tolist()):
            if float(gain[k, best]) > 0:
                factor = float(self.products[k, best] / safe[best])
                share = float(gain[k, best] / own[k])
                found.append(Heir(self.gone[k], self.stay[best], factor, min(share, 1.0)))
        return found


def _tensors(state: State) -> list[Reader]:
    """One reader of every tensor in which a removed unit is read."""
    readers = Replay.of(state).network.readers
    gone = [unit.label for unit in state.removed]
    return list({r.data: r for r in readers if np.isin(r.labels, gone).any()}.values())


def _cases(state: State, reader: Reader) -> list[_Case]:
    """The groups in a tensor of which units are gone and others stay, all with equally many channels there."""
    dense, removed = Replay(state.network), {unit.label for unit in state.removed}
    found = []
    for group in state.network.groups:
        gone = [unit for unit in group.units if unit.label in removed]
        stay = [unit for unit in group.units if unit.label not in removed]
        places = [dense.positions(reader.labels, [unit]) for unit in (*gone, *stay)]
        if gone and stay and len(places[0]) and len({len(at) for at in places}) == 1:
            products = torch.zeros(len(gone), len(stay), dtype=torch.float64)
            energy = torch.zeros(len(gone) + len(stay), dtype=torch.float64)
            found.append(_Case(reader, gone, stay, torch.stack(places), products, energy))
    return found


def _with_columns(dense: Replay, pruned: Replay, reader: Reader, own: Sequence[Heir]) -> Tensor | None:
    """The reader's weight with the columns of removed units added to those of their heirs; None where none is."""
    node = reader.node
    old, new = (layout_of(node, replay.groups_of(node)) for replay in (dense, pruned))
    before, after = (replay.bound(bind(node)["weight"]) for replay in (dense, pruned))
    given = old.filters(before) * _scale(dense, node, old.filters(before))
    filters = new.filters(after).clone()
    scale = _scale(pruned, node, filters)
    taken = torch.where(scale == 0, torch.zeros_like(scale), 1 / torch.where(scale == 0, torch.ones_like(scale), scale))
    stay = _staying(pruned, node, len(given))
    changed = False
    for heir in own:
        pairs = zip(
            dense.positions(reader.labels, [heir.removed]).tolist(),
            pruned.positions(reader.labels, [heir.kept]).tolist(),
            strict=True,
        )
        for source, target in pairs:
            outputs, column = _column(given, old.groups, source)
            rows, place = _column(filters, new.groups, target)
            left = stay[np.isin(stay, np.arange(outputs.start, outputs.stop))]
            if len(left) and np.array_equal(left, stay[rows]):  # else nothing reads the unit, or others read the heir
                column = column[torch.from_numpy(left - outputs.start).to(column.device)]
                place += heir.factor * column * taken[rows].reshape(-1, *[1] * (column.dim() - 1))
                changed = True
    return new.weight(filters) if changed else None


def _staying(pruned: Replay, node: fx.Node, outputs: int) -> NDArray[np.int64]:
    """Which of a layer's outputs the pruned network still has."""
    dim = len(shape_of(node)) - 1 if name_of(node) == "linear" else 1
    stays = np.ones(outputs, dtype=np.bool_)
    for along, labels in pruned.network.extents.get(node, ()):
        if along == dim:
            stays &= ~np.isin(labels, list(pruned.gone))
    return np.flatnonzero(stays)


def _column(filters: Tensor, groups: int, channel: int) -> tuple[slice, Tensor]:
    """(the outputs that see a channel, their weights for it): views of filters (O, I / groups, *kernel)."""
    inner, outer = filters.shape[1], len(filters) // groups
    outputs = slice(channel // inner * outer, (channel // inner + 1) * outer)
    return outputs, filters[outputs, channel % inner]


def _scale(replay: Replay, node: fx.Node, filters: Tensor) -> Tensor:
    """What a normalisation behind a layer multiplies every output by, (O, 1, ...)."""
    shape = (-1, *[1] * (filters.dim() - 1))
    norm = replay.producers.get(node)
    if norm is None:
        return torch.ones(len(filters), dtype=filters.dtype, device=filters.device).reshape(shape)
    return norm_scale(norm, replay.bound).to(filters).reshape(shape)


def _write(replay: Replay, model: nn.Module, node: fx.Node, weight: Tensor) -> None:
    """Sets the weight of one layer of `model`, a copy of the replay's own."""
    names = replay.network.graph.state_names
    parameters = dict(model.named_parameters())
    source = bind(node)["weight"]
    held = [parameters[names[one.name]] for one in sources(source)]
    with torch.no_grad():
        if len(held) > 1:
            write_direction_and_length(held[0], held[1], int(bind(source)["dim"]), weight)
        else:
            held[0].copy_(weight)
