"""`Replay`: runs a network's captured operations, keeps values on the way, and goes on from them.

It runs the original or any network cut from it. That is what makes interventions cheap: everything before the
place where one acts is computed once, and only the operations behind it run again.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from whyprune.data.batches import Batch
from whyprune.errors import InputError
from whyprune.structure.batch_search import Counts
from whyprune.structure.excluded import Exclusion
from whyprune.structure.fold import fold, foldable
from whyprune.structure.network import Network, Reader
from whyprune.structure.operations import ASSERTED, bind, functional, name_of, position_of, where
from whyprune.structure.precise import arguments_at_least, at_least
from whyprune.structure.reuse import in_place, is_spent
from whyprune.structure.schedule import Scaled, adjusted, last_use, sized_only, state_only
from whyprune.structure.state import State
from whyprune.structure.units import Unit

Values = dict[fx.Node, Any]
Edit = Callable[[Tensor], Tensor]


class Replay:
    """A network's operations, bound to the parameters of one model of that architecture.

    Batch normalisation that follows a convolution is folded into it: the convolution's node then holds the
    normalised value, and the normalisation's node repeats it.
    """

    def __init__(
        self,
        network: Network,
        model: nn.Module | None = None,
        removed: Iterable[Unit] = (),
        *,
        excluded: Iterable[Unit] = (),
        precise: bool = True,
    ) -> None:
        """Binds `network`'s operations to a model of its architecture.

        Args:
            network: the traced network.
            model: whose parameters to use; default: the network's own.
            removed: units that the model lacks.
            excluded: units that the model has, and that operations without a weight per channel leave out.
            precise: compute in single precision what the model computes in half precision.
        """
        removed = tuple(removed)
        bypassed = network.bypassed(removed)
        self.network = network = network.without_readers_in(bypassed)
        self.model = network.model if model is None else model
        self.gone = frozenset(unit.label for unit in removed)
        self._idle = frozenset().union(*(block.inside for block in bypassed))
        self._handed_on = {block.result: block.source for block in bypassed}
        state = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        graph = network.graph
        self._precision = graph.precision or (torch.float32 if precise else None)
        self._bound: Values = {}
        for node in graph.nodes:
            if node.op == "placeholder" and graph.state_names.get(node.name) in state:
                self._bound[node] = at_least(state[graph.state_names[node.name]].detach(), self._precision)
            elif node.op == "placeholder" and node.name in graph.constants:
                self._bound[node] = at_least(graph.constants[node.name], self._precision)
        self._operations = operations = [n for n in graph.operations if n not in self._idle and name_of(n) != ASSERTED]
        self._in_place = {
            n: f for n in operations if (f := in_place(n)) and not self._handed_on.keys() & {n, n.args[0]}
        }
        self._arguments = {
            node: arguments_at_least(*adjusted(node, network.sites_of.get(node, ()), self.gone), self._precision)
            for node in operations
        }
        self._exclusion = Exclusion(network, frozenset(unit.label for unit in excluded), self._precision)
        self._functions = {node: functional(node.target) for node in operations}
        self.folded = foldable(operations, self._bound)
        self._weights = {layer: fold(layer, norm, self._bound) for norm, layer in self.folded.items()}
        self._fixed = state_only(operations, self._bound)
        self._sized = sized_only(operations, self._fixed)
        self.order = [n for n in operations if n not in self._fixed]

    @classmethod
    def of(cls, state: State) -> "Replay":
        """The operations of a network that has been pruned so far."""
        return cls(state.network, state.model, state.removed)

    def run(self, batch: Batch, keep: Collection[fx.Node] | None = None) -> Values:
        """Runs all operations on a batch; keeps the values of `keep` (default: all) and of the output."""
        values = self.inputs(batch)
        wanted = None if keep is None else {*keep, *self._outputs}
        values = self._advance(values, self.order, wanted)
        fixed = self._fixed.intersection(keep or ())  # made of parameters alone, such as learned queries
        return {**values, **{node: self._bound_or_run(node, values) for node in fixed}} if fixed else values

    def before(self, batch: Batch, steps: Collection[fx.Node]) -> Values:
        """Runs only what lies in front of `steps` on a batch: all that `resume` needs to go on with them."""
        inside = set(steps)
        return self._advance(self.inputs(batch), [n for n in self.order if n not in inside], self.frontier(list(steps)))

    def logits(self, batch: Batch) -> Tensor:
        """The network's rows on a batch, (B, F) (see `OutputLayout`); logits (B, K) are their own."""
        return self.read(self.run(batch, keep=()))

    def differentiable(self, batch: Batch) -> tuple[Tensor, Values]:
        """The rows, and what every reader sees, as leaves to differentiate the rows by.

        A tensor that several readers see is one leaf for each way into the network: the gradient of each is
        taken where the reader reads, so that paths around a reader do not count for it. A reader that carries its
        channels on (a depthwise convolution, a norm) is passed by: whatever it makes of a unit is seen by the unit's
        next reader, and counts there.
        """
        values: Values = self.inputs(batch)
        seen: Values = {}
        readers: dict[fx.Node, list[fx.Node]] = {}
        for reader in (*self.network.readers, *self.loops(self.network.units)):
            if not self._carries(reader):
                readers.setdefault(reader.node, []).append(reader.data)
        fixed = set(self.behind({r.node for r in self.seen() if r.node in self._fixed})) if self._shared else set()
        order = [n for n in self._operations if n in fixed or n not in self._fixed] if fixed else self.order
        with torch.enable_grad():
            for node in order:
                view: Mapping[fx.Node, Any] = values
                for data in readers.get(node, ()):
                    value = self._get(data, values)
                    if data not in seen and value.is_floating_point():
                        copied = value.clone()
                        seen[data] = copied if copied.requires_grad else copied.requires_grad_()
                    view = {**view, data: seen[data]} if data in seen else view
                values[node] = self.step(node, view)
            return self.read(values), seen

    def _carries(self, reader: Reader) -> bool:
        """Whether every channel that an operation reads goes on in its output, by itself and not mixed with others."""
        read = [label for label in reader.labels.tolist() if label not in self.gone]
        if reader.affine and not name_of(reader.node).endswith("_cell") and self.groups_of(reader.node) < len(read):
            return False
        after = {label for _, labels in self.network.extents.get(reader.node, ()) for label in labels.tolist()}
        return after.issuperset(reader.labels.tolist())

    def inputs(self, batch: Batch) -> Values:
        """The values of the network's inputs."""
        names, graph = self.network.example.kwargs, self.network.graph
        if len(batch.args) != len(self.network.example.args) or batch.kwargs.keys() != names.keys():
            raise InputError(
                f"the batch has {len(batch.args)} positional inputs and keywords {sorted(batch.kwargs)}: "
                f"the model was traced with {len(self.network.example.args)} and {sorted(names)}"
            )
        flat = pytree.tree_leaves((batch.args, {name: batch.kwargs[name] for name in names}))
        if graph.batch_size not in (None, len(batch)):
            raise InputError(f"this model only runs on batches of {graph.batch_size}, not of {len(batch)}")
        by_name = {node.name: node for node in graph.nodes if node.op == "placeholder"}
        given = {by_name[name]: value for name, value in zip(graph.inputs, flat, strict=True) if name in by_name}
        return {node: at_least(value, self._precision) for node, value in given.items()}

    def resume(
        self,
        values: Mapping[fx.Node, Any],
        steps: Sequence[fx.Node],
        edits: Mapping[tuple[fx.Node, fx.Node], Edit] | None = None,
    ) -> Tensor:
        """Runs only `steps`, with edited inputs, from the values kept of an earlier run.

        Args:
            values: what `run` kept: every value that a step reads and that is no step (see `frontier`).
            steps: operations to run again, in execution order.
            edits: (operation, the tensor it reads) -> change of that tensor before the operation reads it.

        Returns:
            The rows, (B, F).
        """
        return self.read(self._advance(dict(values), steps, set(self.network.counted), edits))

    def follow(
        self,
        values: Mapping[fx.Node, Any],
        steps: Sequence[fx.Node],
        edits: Mapping[tuple[fx.Node, fx.Node], Edit] | None = None,
    ) -> Values:
        """All values of `resume`'s operations, as functions of what the edits bring in: to be differentiated.

        Args:
            values: what `run` kept, usable with gradients (see `leaves`).
            steps: operations to run again, in execution order.
            edits: (operation, the tensor it reads) -> change of that tensor before the operation reads it.
        """
        found: Values = dict(values)
        with torch.enable_grad():
            for node in steps:
                found[node] = self.step(node, self._edited(node, found, edits))
        return found

    def behind(self, start: Collection[fx.Node]) -> list[fx.Node]:
        """`start` and all operations that depend on it, in execution order.

        With them what they read that depends on the number of images alone: it is made anew for other images.
        """
        reached = set(start)
        for node in self._operations:
            if not reached.isdisjoint(self.reads(node)):
                reached.add(node)
        wanted = self._sized and {a for n in reached for a in self.reads(n)} & self._sized
        while wanted := wanted - reached:
            reached |= wanted
            wanted = {a for n in wanted for a in self.reads(n)} & self._sized
        return [n for n in self._operations if n in reached]

    def taken(self, node: fx.Node, value: Any, images: Tensor, count: int) -> Any:
        """A kept value for the images of these numbers, of the `count` that it was made for.

        What mixes images is handed on as it is: where no output that counts depends on it, it does no harm
        (`Network.check_images_apart`).

        Args:
            node: what gave it.
            value: a tensor, wherever the images lie in it, or a number computed from the batch's size.
            images: numbers of images, in any order, each as often as needed.
            count: of the run that gave the value.

        Raises:
            InputError: it cannot be told where the images lie, or it holds some of them alone.
        """
        if len(images) == count and torch.equal(images.cpu(), torch.arange(count)):
            return value
        if not isinstance(value, Tensor):
            return self._counted(node, value, len(images), count)
        if self.network.places.mixes(node):
            return value
        place = self.network.batch_place(node)
        return value if place is None else place.take(value, images, count)

    def _counted(self, node: fx.Node, value: Any, images: int, count: int) -> Any:
        """A number computed from the batch's size, for another size."""
        found = self.network.places.found(node)
        if not isinstance(found, Counts):
            self.network.batch_place(node)  # refuses what is known of no value
            return value
        if found.each is None or value % count:
            raise InputError(
                f"{name_of(node)} at {where(node)} makes a number from the batch's size that does not grow with it in "
                "proportion: effects of single images cannot be measured in batches of another size"
            )
        return value // count * images

    def reads(self, node: fx.Node) -> list[fx.Node]:
        """The values that an operation needs; the result of a bypassed block is what the block gets."""
        return [self._handed_on[node]] if node in self._handed_on else node.all_input_nodes

    @property
    def _outputs(self) -> list[fx.Node]:
        return self.network.graph.output.all_input_nodes

    def frontier(self, steps: Sequence[fx.Node]) -> set[fx.Node]:
        """What `steps` read that is not among them: the values to keep in order to resume there."""
        inside = set(steps)
        reads = {a for n in steps for a in self.reads(n)} | set(self.network.counted)
        return reads - inside - self._fixed

    @property
    def excludes(self) -> bool:
        """Whether any operation leaves channels out."""
        return bool(self._exclusion.nodes)

    def step(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
        """The value of one operation."""
        if node in self._handed_on:
            return self._get(self._handed_on[node], values)
        norm_of = self.folded.get(node)
        if norm_of is not None:
            return values[norm_of]
        if node in self._exclusion:
            return self._exclusion.step(node, lambda value: self._get(value, values))
        args, kwargs = self._arguments[node]
        if node in self._weights:
            weight, bias = self._weights[node]
            args = (args[0], weight, bias, *args[3:])
        return self._functions[node](
            *self._resolve(args, values), **{k: self._get(v, values) for k, v in kwargs.items()}
        )

    def read(self, values: Mapping[fx.Node, Any]) -> Tensor:
        """The rows, (B, F), from the values of a run: what counts of the output, flat, in single precision at least."""
        return self.network.outputs.rows(lambda node: self._get(node, values))

    def output(self, values: Mapping[fx.Node, Any]) -> Any:
        """What the model returns, from the values of a run."""
        flat = self._get(list(self.network.graph.output.args[0]), values)  # type: ignore[arg-type]
        return pytree.tree_unflatten(flat, self.network.graph.out_spec)

    def parameters_of(self, node: fx.Node) -> tuple[Tensor, Tensor | None]:
        """Weight and bias with which an affine operation runs, normalisation folded in."""
        if node in self._weights:
            return self._weights[node]
        bound = bind(node)
        bias = bound["bias"]
        return self.bound(bound["weight"]), None if bias is None else self.bound(bias)

    def groups_of(self, node: fx.Node) -> int:
        """How many groups a convolution has here, a transposed one as well; 1 for a linear layer."""
        if "groups" not in bind(node):
            return 1
        args, kwargs = self._arguments[node]
        place = position_of(node, "groups")
        return int(args[place] if place < len(args) else kwargs.get("groups", 1))

    def apply(self, node: fx.Node, data: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """An affine operation on other data, with other weights."""
        args, kwargs = self._arguments[node]
        found: Tensor = self._functions[node](data, weight, bias, *args[3:], **kwargs)
        return found

    def is_fixed(self, node: fx.Node) -> bool:
        """Whether a value depends on no input of the network."""
        return node in self._fixed

    def bound(self, node: fx.Node) -> Tensor:
        """A parameter or buffer as the model has it, or what is computed from them alone; nothing folded in."""
        found: Tensor = self._bound_or_run(node, {})
        return found

    def set_parameters(self, node: fx.Node, weight: Tensor, bias: Tensor) -> None:
        """From now on an affine operation runs with this weight and bias; the model is not changed."""
        self._weights[node] = (weight, bias)

    def positions(self, labels: NDArray[np.int64], units: Iterable[Unit]) -> Tensor:
        """Where the channels of `units` lie among the channels `labels` that this network still has."""
        kept = labels[~np.isin(labels, list(self.gone))] if self.gone else labels
        return torch.from_numpy(np.flatnonzero(np.isin(kept, [u.label for u in units])))

    def kept(self, node: fx.Node, value: Tensor) -> Tensor:
        """The whole network's value at `node` without the channels that this one lacks, along any dimension."""
        left: dict[int, NDArray[np.bool_]] = {}
        for dim, labels in self.network.extents.get(node, ()):
            left[dim] = left.get(dim, True) & ~np.isin(labels, list(self.gone))
        for dim, mask in left.items():
            if not mask.all():
                value = value.index_select(dim, torch.from_numpy(np.flatnonzero(mask)).to(value.device))
        return value

    def readers(self, units: Iterable[Unit]) -> list[Reader]:
        """The operations that read any of `units`; none in a bypassed block."""
        wanted = [u.label for u in units]
        return [r for r in self.network.readers if np.isin(r.labels, wanted).any()]

    def seen(self, units: Iterable[Unit] | None = None) -> list[Reader]:
        """The operations that read any of `units` (default: of all) and that outcomes see something of."""
        found = self.network.readers if units is None else self.readers(units)
        return [r for r in found if r.node in self.network.telling]

    def loops(self, units: Iterable[Unit]) -> list[Reader]:
        """The weights by which recurrent layers read any of `units` inside, where outcomes see something of it."""
        wanted = [u.label for u in units]
        found = [r for r in self.network.loops if r.node in self.network.telling]
        return [r for r in found if np.isin(r.labels, wanted).any()]

    @cached_property
    def _shared(self) -> bool:
        """Whether a reader sees what is made of parameters alone, the same for all images."""
        return any(r.node in self._fixed for r in self.seen())

    @cached_property
    def producers(self) -> dict[fx.Node, fx.Node]:
        """Convolution -> the normalisation folded into it."""
        return {conv: norm for norm, conv in self.folded.items()}

    def _advance(
        self,
        values: Values,
        steps: Sequence[fx.Node],
        wanted: Collection[fx.Node] | None,
        edits: Mapping[tuple[fx.Node, fx.Node], Edit] | None = None,
    ) -> Values:
        last = last_use(steps, self.reads) if wanted is not None else {}
        made: set[fx.Node] = set()
        with torch.inference_mode():
            for node in steps:
                if wanted is not None and not edits and self._writes_over(node, made, wanted):
                    arguments = self._get(list(node.args), values)
                    values[node] = self._in_place[node](*arguments)
                else:
                    values[node] = self.step(node, self._edited(node, values, edits))
                made.add(node)
                for done in last.get(node, ()):
                    if wanted is not None and done not in wanted:
                        values.pop(done, None)
        return values

    def _writes_over(self, node: fx.Node, made: set[fx.Node], wanted: Collection[fx.Node]) -> bool:
        """Whether a node may write its value into its first input: nobody else needs that one."""
        return node in self._in_place and is_spent(node.args[0], self.folded, made, wanted)

    def _edited(
        self, node: fx.Node, values: Values, edits: Mapping[tuple[fx.Node, fx.Node], Edit] | None
    ) -> Mapping[fx.Node, Any]:
        """The values as `node` is to see them."""
        if not edits:
            return values
        changed = {a: edits[node, a](self._get(a, values)) for a in node.all_input_nodes if (node, a) in edits}
        return {**values, **changed} if changed else values

    def _get(self, value: Any, values: Mapping[fx.Node, Any]) -> Any:
        if isinstance(value, fx.Node):
            return values[value] if value in values else self._bound_or_run(value, values)
        if isinstance(value, Scaled):
            return self._get(value.node, values) * value.kept // value.total
        if isinstance(value, list | tuple):
            return type(value)(self._get(v, values) for v in value)
        return value

    def _resolve(self, args: tuple[Any, ...], values: Mapping[fx.Node, Any]) -> list[Any]:
        return [self._get(a, values) for a in args]

    def _bound_or_run(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
        """A parameter, or something computed from parameters alone (once)."""
        if node not in self._bound:
            # Not an inference tensor: `differentiable` may use it later.
            with torch.inference_mode(mode=False), torch.no_grad():
                self._bound[node] = self.step(node, values)
        return self._bound[node]


def leaves(values: Mapping[fx.Node, Any]) -> Values:
    """Kept values as constants of a computation that is differentiated."""
    return {node: value.clone() if isinstance(value, Tensor) else value for node, value in values.items()}
