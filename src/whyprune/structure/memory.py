"""Memory at work: parameters, buffers, and the most activations that live at the same time.

Activations live from the operation that makes them to the last that reads them. A view takes no memory of its own. An
operation that treats every value by itself writes over an input that nobody else needs, and normalisation by fixed
statistics does so too, as the runtimes do that devices have. What a runtime itself needs is not counted.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx

from whyprune.structure.blocks import operations_of
from whyprune.structure.capture import Graph
from whyprune.structure.cost import CostModel, Sizes
from whyprune.structure.network import Network
from whyprune.structure.operations import bind, is_pointwise, name_of
from whyprune.structure.schedule import last_use
from whyprune.structure.shapes import Shape, tensor_shapes


@dataclass(frozen=True)
class Step:
    """What lives while one operation runs, itself included."""

    operation: str
    tensors: tuple[Shape, ...]

    def bytes(self, gone: Sizes) -> int:
        """For one sample, when so many indices are removed."""
        return sum(shape.bytes(gone) for shape in self.tensors)


@dataclass(frozen=True)
class PeakMemory:
    """A `Price` in bytes at one batch size: the network itself and the step at which most activations live.

    Attributes:
        steps: those of which one may be the largest.
        network: what its own parameters and buffers take.
        batch_size: samples at once.
        kind: the field of `Cost`.
    """

    steps: tuple[Step, ...]
    network: CostModel
    batch_size: int = 1
    kind: str = "memory"

    def __call__(self, gone: Sizes) -> int:
        """Bytes when `gone[parameter, axis]` indices are removed."""
        most = max((step.bytes(gone) for step in self._running(gone)), default=0)
        return self.batch_size * most + self.network.bytes(gone)

    def pressure(self, gone: Sizes, limit: float) -> float:
        """The limit and what every step has above it, or the largest where none has."""
        held = self.network.bytes(gone)
        totals = [held + self.batch_size * step.bytes(gone) for step in self._running(gone)]
        above = sum(total - limit for total in totals if total > limit)
        return limit + above if above else max(totals, default=held)

    def _running(self, gone: Sizes) -> list[Step]:
        idle = operations_of(self.network.blocks, gone)
        return [step for step in self.steps if step.operation not in idle]


def peak_memory(network: Network, batch_size: int = 1) -> PeakMemory:
    """The price of a network's memory.

    Args:
        network: a traced model.
        batch_size: samples at once; the activations of one sample times this.
    """
    cost, shapes = network.cost, tensor_shapes(network)
    found = [Step(n.name, tuple(shapes[a] for a in alive)) for n, alive in living(network.graph).items()]
    home = {operation: block.name for block in cost.blocks for operation in block.operations}
    counts = [(Counter(step.tensors), home.get(step.operation)) for step in found]

    def exceeded(own: Counter[Shape], block: str | None) -> bool:
        """Whether another step, which goes no sooner than this one, always holds more."""
        return any(own < other and at in (None, block) for other, at in counts)

    biggest = [step for step, (own, block) in zip(found, counts, strict=True) if not exceeded(own, block)]
    return PeakMemory(tuple(biggest), cost, batch_size)


def living(graph: Graph) -> dict[fx.Node, list[fx.Node]]:
    """Operation -> the nodes whose own memory is in use while it runs: inputs of the model and results."""
    inputs = [n for n in graph.nodes if n.op == "placeholder" and n.name in graph.inputs]
    operations = [n for n in graph.operations if hasattr(n.meta.get("val"), "shape")]
    depends = _data(inputs, operations)
    steps = [n for n in operations if n in depends]
    owner = {n: n for n in inputs}
    done = last_use([*steps, graph.output])
    readers = {n: [u for u in n.users if u in depends or u is graph.output] for n in (*inputs, *steps)}
    alive: dict[fx.Node, int] = {}
    for n in inputs:
        alive[n] = 1
    found = {}
    for node in steps:
        source = _shares(node, owner, alive, readers)
        owner[node] = node if source is None else owner[source]
        alive[owner[node]] = alive.get(owner[node], 0) + 1
        found[node] = list(alive)
        for spent in (*done.get(node, ()), *([] if readers[node] else [node])):
            if spent in owner:
                alive[owner[spent]] -= 1
                if not alive[owner[spent]]:
                    del alive[owner[spent]]
    return found


def _data(inputs: list[fx.Node], operations: list[fx.Node]) -> set[fx.Node]:
    """What depends on the inputs: all else is computed once and for all."""
    found = set(inputs)
    for node in operations:
        if not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found - set(inputs)


def _shares(
    node: fx.Node,
    owner: Mapping[fx.Node, fx.Node],
    alive: Mapping[fx.Node, int],
    readers: Mapping[fx.Node, list[fx.Node]],
) -> fx.Node | None:
    """The value whose memory an operation's result takes; None where it needs its own."""
    sources = [a for a in node.all_input_nodes if a in owner]
    if _is_view(node):
        return sources[0]
    if not (is_pointwise(node) or _is_fixed_norm(node)):
        return None
    own = node.meta["val"]
    spent = [a for a in sources if readers[a] == [node] and alive[owner[a]] == 1 and a.op != "placeholder"]
    alike = (a for a in spent if (a.meta["val"].shape, a.meta["val"].dtype) == (own.shape, own.dtype))
    return next(alike, None)


def _is_view(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    aliases = [] if schema is None else [r.alias_info for r in schema.returns]
    return len(aliases) == 1 and aliases[0] is not None and not aliases[0].is_write


def _is_fixed_norm(node: fx.Node) -> bool:
    return name_of(node) == "batch_norm" and not bind(node)["training"]
