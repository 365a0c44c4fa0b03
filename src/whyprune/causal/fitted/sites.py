"""Sites: the tensors at which units are read, what is read there run by run, and which site depends on which.

One number per unit, site and run: the mean over places of what a reader sees. It is a lossy summary: the network is a
deterministic function of its maps, and not of these numbers. Whatever is fitted to them inherits that.

The graph is the network's own. A site depends on another in two ways: through an operation that mixes channels
(`read`), or because the tensor itself flows on past its readers, as a residual stream does (`passed`). do(unit := v)
acts where units are read, so what is passed on is not touched by it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from whyprune.interventions.suffix import apart
from whyprune.interventions.worlds import Masks, Worlds
from whyprune.structure.batch_place import BatchPlace
from whyprune.structure.network import Network, Reader
from whyprune.structure.operations import bind
from whyprune.structure.replay import Replay
from whyprune.structure.units import Unit

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Site:
    """A tensor at which units are read.

    Attributes:
        name: of the first operation that reads it.
        data: the tensor.
        reader: the first operation that reads it.
        dim: along which the channels lie.
        units: places, among the units asked for, of those that are read here, ascending.
        channels: for each of them the indices of its channels.
        read: sites that feed this one through an operation that mixes channels.
        passed: sites whose tensor flows into this one without such an operation.
    """

    name: str
    data: fx.Node
    reader: fx.Node
    dim: int
    units: NDArray[np.int64]
    channels: tuple[NDArray[np.int64], ...]
    read: tuple[int, ...]
    passed: tuple[int, ...]


@dataclass(frozen=True)
class Sites:
    """All sites in the order of execution, and which of them feed the output."""

    sites: tuple[Site, ...]
    last: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.sites)


@dataclass(frozen=True)
class Runs:
    """Runs of the network under do(S := v), one row for each pair of a set and an image.

    Attributes:
        masks: (rows, units), which units were intervened on.
        images: (rows,), the number of each row's image.
        raw: per site (rows, its units): the summary as computed.
        seen: per site (rows, its units): the summary as the readers saw it.
        logits: (rows, classes).
    """

    masks: Masks
    images: NDArray[np.int64]
    raw: tuple[Floats, ...]
    seen: tuple[Floats, ...]
    logits: Tensor = field(repr=False)

    def __len__(self) -> int:
        return len(self.images)


def sites(replay: Replay, units: Sequence[Unit]) -> Sites:
    """The sites at which `units` are read, and their graph, in a network as pruned so far."""
    network = replay.network
    place = {u.label: k for k, u in enumerate(units)}
    readers: dict[fx.Node, Reader] = {}
    for reader in replay.seen():
        if any(label in place for label in reader.labels.tolist()):
            readers.setdefault(reader.data, reader)
    order = [n for n in network.graph.nodes if n in readers]
    number = {node: k for k, node in enumerate(order)}
    edges = {(r.node, r.data) for r in network.readers}
    found = []
    for node in order:
        read, passed = _parents(replay, replay.reads(node), node, number, edges)
        labels = [label for label in readers[node].labels.tolist() if label not in replay.gone]
        columns = np.array([place.get(label, -1) for label in labels])
        found.append(_site(network, readers[node], columns, read, passed))
    output = network.graph.output
    read, passed = _parents(replay, output.all_input_nodes, output, number, edges)
    return Sites(tuple(found), tuple(sorted({*read, *passed})))


def watch(worlds: Worlds, where: Sites, masks: Masks, images: NDArray[np.int64]) -> Runs:
    """Runs the network under the row's intervention on the row's image and keeps what is read at every site.

    Costs one dense forward pass a row (two under `resample`).
    """
    number = {(s.reader, s.data): k for k, s in enumerate(where.sites)}
    raw: list[list[Floats]] = [[] for _ in where.sites]
    seen: list[list[Floats]] = [[] for _ in where.sites]

    def keep(reader: Reader, computed: Tensor, shown: Tensor, rows: int) -> None:
        k = number.get((reader.node, reader.data))
        if k is not None:
            lie = apart(worlds.replay, reader)
            raw[k].append(_summary(where.sites[k], computed, rows, lie))
            seen[k].append(_summary(where.sites[k], shown, rows, lie))

    logits = worlds.logits(masks, images, see=keep)
    rows = len(images)
    return Runs(masks, images, _stacked(raw, where, rows), _stacked(seen, where, rows), logits)


def _stacked(blocks: Sequence[Sequence[Floats]], where: Sites, rows: int) -> tuple[Floats, ...]:
    """Per site (rows, its units); a network of one batch size gives rows beyond the last, which go."""
    empty = [np.zeros((0, len(s.units))) for s in where.sites]
    return tuple(np.concatenate(b)[:rows] if b else e for b, e in zip(blocks, empty, strict=True))


def _site(
    network: Network, reader: Reader, columns: NDArray[np.int64], read: tuple[int, ...], passed: tuple[int, ...]
) -> Site:
    units = np.unique(columns[columns >= 0])
    channels = tuple(np.flatnonzero(columns == u) for u in units)
    return Site(_name(network, reader), reader.data, reader.node, reader.dim, units, channels, read, passed)


def _name(network: Network, reader: Reader) -> str:
    weight = bind(reader.node).get("weight") if reader.affine else None
    known = network.graph.state_names.get(weight.name) if isinstance(weight, fx.Node) else None
    return known.removesuffix(".weight") if known else reader.node.name


def _parents(
    replay: Replay,
    inputs: Sequence[fx.Node],
    node: fx.Node,
    number: dict[fx.Node, int],
    edges: set[tuple[fx.Node, fx.Node]],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The nearest sites behind a node: (those that are read on the way, those that only pass)."""
    read: set[int] = set()
    passed: set[int] = set()
    todo = [(node, a) for a in inputs]
    visited = set(todo)
    while todo:
        user, data = todo.pop()
        if data in number:
            (read if (user, data) in edges else passed).add(number[data])
            continue
        new = {(data, a) for a in replay.reads(data)} - visited
        visited |= new
        todo.extend(new)
    return tuple(sorted(read)), tuple(sorted(passed))


def _summary(site: Site, value: Tensor, rows: int, lie: BatchPlace) -> Floats:
    """(rows, units): the mean over places (and windows) of every unit's channels."""
    by_channel = lie.front(value, rows).movedim(lie.in_front(site.dim), -1)
    by_channel = by_channel.reshape(rows, -1, by_channel.shape[-1]).double().mean(dim=1)
    columns = [by_channel[:, torch.from_numpy(c)].mean(dim=1) for c in site.channels]
    found: Floats = torch.stack(columns, dim=1).numpy()
    return found
