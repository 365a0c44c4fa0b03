"""A captured model whose channels have labels, and the network that they say at the moment."""

import gc
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, fx, nn

from whyprune.data.batches import Batch
from whyprune.structure.attributes import ties
from whyprune.structure.axes import Axis, Extent
from whyprune.structure.capture import Graph
from whyprune.structure.closure import close
from whyprune.structure.cost import cost_model
from whyprune.structure.labels import Labellings, Labels, LabelSpace, along, distinct, support, varies, vector
from whyprune.structure.network import Network, Reader
from whyprune.structure.operations import AFFINE, bind, name_of
from whyprune.structure.outputs import Named, OutputLayout, layout_of
from whyprune.structure.rules import ChannelCount, Context, Reading, Rectangle, propagate
from whyprune.structure.sites import AttributeRule, WidthSite, first_claims
from whyprune.structure.units import Group, derive
from whyprune.structure.unread import Unrun, follow_training, unread, unread_buffers


@dataclass
class Labelled:
    """A captured model whose channels have labels; refusing some of them gives another network."""

    model: nn.Module
    example: Batch
    graph: Graph
    heads: str = "whole"
    counting: Named | Iterable[Named] | None = None
    space: LabelSpace = field(default_factory=LabelSpace)
    state: dict[str, dict[int, Tensor]] = field(init=False)
    ctx: Context = field(init=False)
    outputs: OutputLayout = field(init=False)
    unread: tuple[str, ...] = field(default=(), init=False)
    trains: bool = field(default=False, init=False)
    _found: tuple[tuple[int, int], Network] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.outputs = layout_of(self.graph).chosen(self.counting)
        self.state = _atoms(self.model, self.space)
        for length, axes in ties(self.model):
            (name, axis, start), *others = axes
            for other, its_axis, its_start in others:
                own = self.state[name][axis][start : start + length]
                self.space.unite(own, self.state[other][its_axis][its_start : its_start + length])
        held = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        labellings = {name: _labellings(axes, held[name].dim()) for name, axes in self.state.items()}
        self.ctx = propagate(self.graph, self.space, labellings, dict(self.model.named_buffers()), self.heads)
        if unread(self.model, [self.graph]) or unread_buffers(self.model, self.graph):
            training = follow_training(self.model, self.example, self.graph, self.ctx, labellings)
            self.trains = training is not None
            left = unread(self.model, [self.graph, *([training] if training else [])])
            extents = {n.name: self.extent(n) for n in self.graph.nodes}
            self.unread = Unrun(self.model, self.graph, self.space, self.state, extents).settle(left)

    def network(self, rules: tuple[AttributeRule, ...] = ()) -> Network:
        """The network that the labels and pins of this moment say, in which attributes follow by `rules`."""
        close(self.ctx)
        if self._found is None or self._found[0] != self.space.state:
            with _uncollected():
                self._found = self.space.state, self._derived()
        return replace(self._found[1], attributes=first_claims(rules))

    def _derived(self) -> Network:
        readers = tuple(reader for reading in self.ctx.readings if (reader := self._reader(reading)) is not None)
        marks: dict[int, list[str]] = defaultdict(list)
        for reader in readers:
            for root in set(reader.labels.tolist()) if reader.statistics else ():
                marks[root].append(name_of(reader.node))
        for node, labels in self.ctx.marked:
            for root in set(self._roots(labels).tolist()):
                marks[root].append(name_of(node))
        groups, refusals = derive(self.space, self.state, self._writers(), marks)
        axis_of = self._axes()
        return Network(
            model=self.model,
            example=self.example,
            graph=self.graph,
            outputs=self.outputs,
            groups=groups,
            refusals=refusals,
            readers=readers,
            loops=tuple(Reader(n, weight, 1, self._roots(labels), False) for n, weight, labels in self.ctx.loops),
            written={n: self._roots(labels) for n, labels in self.ctx.writers if name_of(n) in AFFINE},
            cost=cost_model(self.model, self.graph, self.extent, axis_of),
            axis_of=axis_of,
            sites=self.sites(),
            unread=self.unread,
            extents={n: found for n in self.graph.nodes if (found := self.extent(n))},
        )

    def sites(self) -> tuple[WidthSite, ...]:
        """All numbers among the operations' arguments that change when channels go."""
        return tuple(site for count in self.ctx.counts if (site := self._site(count)) is not None)

    def tie(self, group: Group, sites: Iterable[WidthSite]) -> None:
        """Lets the channels that sites count go with the group of that width, index by index."""
        name, axis = group.home
        for site in sites:
            self.space.unite(self.state[name][axis], torch.from_numpy(site.labels))

    def save(self) -> tuple[LabelSpace, list[Rectangle]]:
        """What `restore` needs to undo all that comes."""
        return self.space.save(), list(self.ctx.rectangles)

    def restore(self, saved: tuple[LabelSpace, list[Rectangle]]) -> None:
        """Forgets all unions and pins since `save`."""
        self.space.restore(saved[0])
        self.ctx.rectangles[:] = saved[1]

    def refuse(self, labels: Labels, where: str, reason: str) -> None:
        """Keeps channels whole."""
        self.space.pin(torch.from_numpy(labels), where, reason)

    def extent(self, node: fx.Node) -> Extent:
        """Along which dimensions of a tensor channels lie, with their classes."""
        value = self.ctx.values.get(node)
        found = [self.space.roots(labelling) for labelling in value] if isinstance(value, tuple) else []
        dims = [(roots, d) for roots in found for d in sorted(support(roots)) if varies(roots, {d})]
        return tuple((d, vector(roots, d).numpy()) for roots, d in dims)

    def _roots(self, labels: Tensor) -> Labels:
        return self.space.roots(labels).numpy()

    def _reader(self, reading: Reading) -> Reader | None:
        roots = self.space.roots(reading.labelling)
        if reading.inside is not None and not varies(self.space.roots(reading.inside), {1}):
            return None
        dims = [d for d in sorted(reading.dims) if varies(roots, {d})]
        if not dims:
            return None
        affine = reading.affine and _is_plain(reading.node)
        labels = vector(roots, dims[0]).numpy()
        return Reader(reading.node, reading.data, dims[0], labels, affine, reading.statistics)

    def _site(self, count: ChannelCount) -> WidthSite | None:
        roots = self.space.roots(count.labelling)
        if support(roots) - {count.dim} and not varies(roots, {count.dim}):
            return None
        return WidthSite(count.node, count.argument, count.place, vector(roots, count.dim).numpy(), count.value)

    def _axes(self) -> Callable[[Labels], tuple[Axis, int, int] | None]:
        """Finds the axis of a parameter that has the same channels as a vector, each equally often."""
        known: dict[bytes, list[tuple[Axis, Labels]]] = defaultdict(list)
        for name, axes in self.state.items():
            for axis, atoms in axes.items():
                classes, counts = np.unique(self._roots(atoms), return_counts=True)
                known[classes.tobytes()].append(((name, axis), counts))

        def find(labels: Labels) -> tuple[Axis, int, int] | None:
            classes, counts = np.unique(labels, return_counts=True)
            for axis, own in known.get(classes.tobytes(), ()):
                if (counts * own[0] == own * counts[0]).all():
                    return axis, int(counts[0]), int(own[0])
            return None

        return find

    def _writers(self) -> dict[int, list[str]]:
        writers: dict[int, dict[str, None]] = defaultdict(dict)
        for node, labels in self.ctx.writers:
            name = _weight_of(node, self.graph)
            if name is None:
                continue
            for root in distinct(self.space.roots(labels)):
                if root >= 0:
                    writers[root].setdefault(name)
        return {root: list(names) for root, names in writers.items()}


@contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage collection: among so many small objects that all stay, it takes longer than making them."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _atoms(model: nn.Module, space: LabelSpace) -> dict[str, dict[int, Tensor]]:
    """Every index of every axis of parameters and buffers gets an atom, where an axis has more than one."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: {d: space.fresh(n) for d, n in enumerate(t.shape) if n > 1} for name, t in named}


def _labellings(axes: dict[int, Tensor], rank: int) -> Labellings:
    return tuple(along(labels, axis, rank) for axis, labels in axes.items())


def _is_plain(node: fx.Node) -> bool:
    """Whether an operation is a convolution or linear layer with a parameter as its weight."""
    return name_of(node) in AFFINE and bind(node)["weight"].op == "placeholder"


def _weight_of(node: fx.Node, graph: Graph) -> str | None:
    """The first parameter from which an operation's weight comes."""
    bound = bind(node)
    start = bound.get("weight", bound.get("w_hh", bound["params"][1] if "params" in bound else None))
    pending = [start] if isinstance(start, fx.Node) else list(node.all_input_nodes)
    while pending:
        found = pending.pop(0)
        if found.name in graph.state_names:
            return graph.state_names[found.name]
        pending = [*found.all_input_nodes, *pending] if isinstance(start, fx.Node) else pending
    return None
