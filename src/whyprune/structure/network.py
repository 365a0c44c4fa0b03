"""`Network`: a traced model with its units, groups, refusals and costs."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch import fx, nn

from whyprune.data.batches import Batch
from whyprune.errors import InputError
from whyprune.structure.axes import Axis, Extent
from whyprune.structure.batch_place import BatchPlace
from whyprune.structure.batch_search import BatchPlaces
from whyprune.structure.blocks import Block, state_of
from whyprune.structure.capture import Graph
from whyprune.structure.cost import CostModel, Price
from whyprune.structure.labels import Labels
from whyprune.structure.outputs import OutputLayout
from whyprune.structure.sites import AttributeRule, WidthSite
from whyprune.structure.tie import tied
from whyprune.structure.units import Group, Refusal, Unit


@dataclass(frozen=True)
class Reader:
    """An operation that mixes channels: where an intervention do(unit := v) acts.

    Attributes:
        node: the operation.
        data: the tensor it reads.
        dim: the dimension of `data` along which the channels lie.
        labels: the class of every index of that dimension.
        affine: True for a convolution or linear layer, which has a weight per channel.
        statistics: True where removing a channel is not the same as setting it to zero.
    """

    node: fx.Node
    data: fx.Node
    dim: int
    labels: Labels
    affine: bool = True
    statistics: bool = False


@dataclass(frozen=True)
class Network:
    """A traced model: its axes, their couplings, the removable units, what each costs, and the refusals.

    Attributes:
        model: the user's model; never changed.
        example: the inputs it was traced on.
        graph: its operations.
        outputs: what it returns, and which tensors of that count.
        groups: units that share one set of axes.
        refusals: what is kept whole, where, and why.
        written: the class of every channel that a convolution or linear layer writes.
        readers: the operations at which do(unit := v) acts, with the class of every channel they read.
        loops: the weights by which a recurrent layer reads its own hidden units, as readers of these weights' columns:
            under do(unit := v) they are zero, as no v can be put in there.
        cost: exact cost as a function of what is removed.
        attributes: integers in the user's modules that count channels.
        sites: numbers in the graph's arguments that count channels.
        extents: of every tensor, along which dimensions channels lie.
        blocks: residual blocks that can go as a whole.
        unread: modules and parameters that the example inputs do not run, neither in evaluation nor in training, and
            what becomes of channels that could feed them.
        known_places: what `places` gives.
        axis_of: of a vector of classes, the axis of a parameter that has the same ones (`cost_model`).
    """

    model: nn.Module
    example: Batch
    graph: Graph
    outputs: OutputLayout
    groups: tuple[Group, ...]
    refusals: tuple[Refusal, ...]
    readers: tuple[Reader, ...]
    written: Mapping[fx.Node, Labels]
    cost: CostModel
    attributes: tuple[AttributeRule, ...] = field(default=())
    sites: tuple[WidthSite, ...] = field(default=())
    extents: Mapping[fx.Node, Extent] = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()
    unread: tuple[str, ...] = ()
    loops: tuple[Reader, ...] = ()
    axis_of: Callable[[Labels], tuple[Axis, int, int] | None] = field(default=lambda _: None, compare=False)
    known_places: BatchPlaces | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.known_places is None:  # what `replace` makes of this network has the same ones
            object.__setattr__(self, "known_places", BatchPlaces(self.model, self.graph, self.example))

    @property
    def places(self) -> BatchPlaces:
        """Where the images of a batch lie in every value; found when first asked for."""
        assert self.known_places is not None
        return self.known_places

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """All removable units, group by group."""
        return tuple(unit for group in self.groups for unit in group.units)

    @cached_property
    def sites_of(self) -> Mapping[fx.Node, tuple[WidthSite, ...]]:
        """The sites of every operation that has any."""
        return {node: tuple(s for s in self.sites if s.node is node) for node in {s.node for s in self.sites}}

    def batch_place(self, node: fx.Node) -> BatchPlace | None:
        """Where the images of a batch lie in a node's tensor; None where it does not depend on the batch.

        Raises:
            InputError: images are mixed there, or it cannot be told where they lie.
        """
        return self.places.of(node)

    def check_images_apart(self) -> None:
        """Refuses a network whose output for one image depends on others: it has no effects of single images.

        Raises:
            InputError: with the operation that mixes images.
        """
        for node in self.counted:
            self.batch_place(node)

    @cached_property
    def counted(self) -> tuple[fx.Node, ...]:
        """The operations whose results outcomes see."""
        return tuple(tensor.node for tensor in self.outputs.held)

    @cached_property
    def telling(self) -> frozenset[fx.Node]:
        """The operations that the results of `counted` depend on, and those themselves."""
        found = set(self.counted)
        for node in reversed(self.graph.nodes):
            if node in found:
                found.update(node.all_input_nodes)
        return frozenset(found)

    @property
    def positional(self) -> int:
        """How many positional inputs the model takes."""
        return max(len(self.example.args), 1)

    @cached_property
    def by_name(self) -> Mapping[str, Unit]:
        """Unit name -> unit."""
        return {unit.name: unit for unit in self.units}

    def group(self, name: str) -> Group:
        """The group of that name."""
        found = next((g for g in self.groups if g.name == name), None)
        if found is None:
            raise InputError(f"no group named {name!r}: the groups are {[g.name for g in self.groups]}")
        return found

    @cached_property
    def groups_as_run(self) -> tuple[Group, ...]:
        """The groups in the order in which the layers run that first write them."""
        runs: dict[str, int] = {}
        for place, node in enumerate(self.graph.operations):
            for taken in node.all_input_nodes:
                if taken.name in self.graph.state_names:
                    runs.setdefault(self.graph.state_names[taken.name], place)
        return tuple(sorted(self.groups, key=lambda group: runs.get(group.home[0], len(runs))))

    def ignoring(self, names: Iterable[str]) -> "Network":
        """The same network with the named groups, and all groups that the named modules write, kept whole.

        Raises:
            InputError: a name fits no group and no module that writes one.
        """
        kept, unused = list(self.groups), set(names)
        for name in tuple(unused):
            left = [g for g in kept if not g.written_by(name)]
            if len(left) < len(kept) or any(g.written_by(name) for g in self.groups):
                unused.discard(name)
            kept = left
        if unused:
            known = ", ".join(g.name for g in self.groups)
            raise InputError(f"nothing to ignore is named {min(unused)!r}: the groups are {known}")
        return replace(self, groups=tuple(kept), blocks=_still_whole(self.blocks, kept))

    def keeping(self, units: Iterable[Unit], refusals: Iterable[Refusal]) -> "Network":
        """The same network in which these units stay, for the reasons given."""
        labels = {unit.label for unit in units}
        if not labels:
            return self
        groups = [replace(g, units=tuple(u for u in g.units if u.label not in labels)) for g in self.groups]
        whole = [g for g, old in zip(groups, self.groups, strict=True) if len(g.units) == len(old.units)]
        return replace(
            self,
            groups=tuple(g for g in groups if g.units),
            refusals=(*self.refusals, *refusals),
            blocks=_still_whole(self.blocks, whole),
        )

    def together(self, names: Iterable[Sequence[str]]) -> "Network":
        """The same network in which the groups of each list lose the same channels: unit i of all goes together.

        Args:
            names: lists of groups, or of modules that write groups, with equally many units.

        Raises:
            InputError: a name fits no group, or groups have different numbers of units.
        """
        network = self
        for listed in names:
            network = tied(network, listed)
        return replace(network, blocks=_still_whole(network.blocks, network.groups))

    def priced(self, prices: Sequence[Price]) -> "Network":
        """The same network, whose cost has these kinds as well; a price takes the place of one of its kind."""
        return replace(self, cost=self.cost.priced(prices))

    def select(self, units: Iterable[Unit | str]) -> tuple[Unit, ...]:
        """The units named or given, each once, in the network's order.

        Raises:
            InputError: one is unknown, or so many go that an axis would be left without channels, but for the axes of
                residual blocks that go as a whole.
        """
        names = self.names_of(units)
        chosen = tuple(unit for unit in self.units if unit.name in names)
        counts: dict[Axis, int] = {}
        for unit in chosen:
            for piece in unit.slices:
                key = (piece.parameter, piece.axis)
                counts[key] = counts.get(key, 0) + len(piece.indices)
        bypassed = state_of(self.bypassed(chosen))
        for (parameter, axis), count in counts.items():
            if count >= self.cost.shapes[parameter][axis] and parameter not in bypassed:
                raise InputError(f"all {count} channels of {parameter} (axis {axis}) would go: keep at least one")
        return chosen

    def names_of(self, units: Iterable[Unit | str]) -> set[str]:
        """The names of units, given by name or as they are.

        Raises:
            InputError: one is unknown, or no unit at all.
        """
        try:
            names = {u if isinstance(u, str) else u.name for u in units}
        except (AttributeError, TypeError):
            raise InputError(
                f"{type(units).__name__} holds no units: give units of network.units or their names, such as plan.units"
            ) from None
        unknown = sorted(names - self.by_name.keys())
        if unknown:
            raise InputError(f"no unit named {unknown[0]!r} ({len(unknown)} unknown): see network.units for the names")
        return names

    def bypassed(self, units: Iterable[Unit]) -> tuple[Block, ...]:
        """The residual blocks of which nothing is left without these units."""
        counts = Counter(unit.group for unit in units)
        return tuple(b for b in self.blocks if all(counts[name] == len(self.group(name).units) for name in b.groups))

    def without_readers_in(self, blocks: Iterable[Block]) -> "Network":
        """The same network, with no reader that lies in one of these blocks."""
        idle = frozenset().union(*(block.inside | {block.result} for block in blocks))
        if not idle:
            return self
        readers, loops = (tuple(r for r in found if r.node not in idle) for found in (self.readers, self.loops))
        return replace(self, readers=readers, loops=loops)

    @cached_property
    def reader_nodes(self) -> frozenset[fx.Node]:
        """The nodes of `readers`."""
        return frozenset(r.node for r in self.readers)

    def __repr__(self) -> str:
        return (
            f"Network({type(self.model).__name__}: {len(self.units)} units in {len(self.groups)} groups, "
            f"{len(self.refusals)} refusals)"
        )


def _still_whole(blocks: Iterable[Block], groups: Iterable[Group]) -> tuple[Block, ...]:
    """The blocks of which all groups can still go, and nothing else with them."""
    axes = {group.name: group.axes for group in groups}

    def own(block: Block, name: str) -> bool:
        return name in axes and all(parameter in block.state for parameter, _, _ in axes[name])

    return tuple(block for block in blocks if all(own(block, name) for name in block.groups))
