"""The registry of rules and the pass that runs them over a captured graph."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, fx

from whyprune.structure.capture import Graph, module_path, user_frame
from whyprune.structure.labels import Axes, Labels, LabelSpace

Arguments = Mapping[str, Any]
Value = Axes | tuple[Axes | None, ...] | None
Rule = Callable[["Context", fx.Node, Arguments], Value]

_RULES: dict[str, Rule] = {}


@dataclass(frozen=True)
class Reader:
    """An operation with parameters that reads channels: where an intervention do(unit := v) acts.

    Attributes:
        node: the operation.
        data: the tensor it reads.
        dim: the dimension of `data` along which the channels lie.
        labels: the atom of every index of that dimension.
    """

    node: fx.Node
    data: fx.Node
    dim: int
    labels: Labels


@dataclass(frozen=True)
class WidthSite:
    """A number in user code that names a width; it must equal how many of `labels` remain.

    Attributes:
        node: the operation that takes the number.
        argument: position of the number, or of the list of numbers, among the operation's arguments.
        places: per number, its place in that list.
        sides: per number, the atoms that it counts.
        values: the numbers today.
        adjustable: True where the number may come from an integer attribute of the module that runs it.
    """

    node: fx.Node
    argument: int
    places: tuple[int, ...]
    sides: tuple[Labels, ...]
    values: tuple[int, ...]
    adjustable: bool


@dataclass
class Context:
    """What rules read and write while labels travel through the graph."""

    space: LabelSpace
    values: dict[fx.Node, Value] = field(default_factory=dict)
    readers: list[Reader] = field(default_factory=list)
    writers: list[tuple[fx.Node, Labels]] = field(default_factory=list)
    sites: list[WidthSite] = field(default_factory=list)

    def axes(self, value: Any) -> Axes | None:
        """The labels of an argument; None for what is no tensor."""
        if not isinstance(value, fx.Node):
            return None
        found = self.values.get(value)
        return None if found is None or (found and isinstance(found[0], tuple)) else found  # type: ignore[return-value]

    def pin(self, axes: Axes | None, node: fx.Node, reason: str) -> None:
        """Keeps a tensor's channels whole because of what `node` does with them."""
        self.space.pin_all(axes, where(node), reason)

    def join(self, left: Labels | None, right: Labels | None, node: fx.Node) -> Labels | None:
        """One dimension of two tensors that meet index by index."""
        if left is None or right is None:
            labels = left if right is None else right
            self.space.pin(labels, where(node), f"{name_of(node)} meets them with values that are no known channels")
            return None
        return self.space.unite(left, right)


def where(node: fx.Node) -> str:
    """A node's place for a person: module path and line of user code."""
    path = module_path(node)
    return f"{path} ({user_frame(node)})" if path else user_frame(node)


def shape_of(node: fx.Node) -> tuple[Any, ...]:
    """The shape of a node's tensor; free dimensions are symbolic."""
    return tuple(node.meta["val"].shape)


def name_of(node: fx.Node) -> str:
    """The operation's name: `conv2d` for `aten.conv2d.default`, `relu` for `aten.relu_.default`."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return str(getattr(node.target, "__name__", node.target))
    name = str(schema.name).split("::")[-1]
    return name if name.startswith("__") else name.rstrip("_")


def bind(node: fx.Node) -> dict[str, Any]:
    """An operation's arguments by name, with defaults filled in."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {str(i): a for i, a in enumerate(node.args)}
    bound: dict[str, Any] = {}
    for position, argument in enumerate(schema.arguments):
        if position < len(node.args):
            bound[argument.name] = node.args[position]
        else:
            bound[argument.name] = node.kwargs.get(argument.name, argument.default_value)
    return bound


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers a rule for the ATen operations `names`."""

    def register(function: Rule) -> Rule:
        for name in names:
            if name in _RULES:
                raise ValueError(f"two rules for aten.{name}")
            _RULES[name] = function
        return function

    return register


def known_operations() -> list[str]:
    """The names of all operations with a rule."""
    return sorted(_RULES)


def propagate(graph: Graph, space: LabelSpace, state: Mapping[str, Axes]) -> Context:
    """Runs every node's rule in execution order; network inputs and outputs are pinned.

    Args:
        graph: the captured network.
        space: where atoms live.
        state: parameter or buffer name -> its labels.
    """
    ctx = Context(space)
    for node in graph.nodes:
        if node.op == "placeholder":
            ctx.values[node] = _placeholder(ctx, node, graph, state)
        elif node.op == "call_function":
            ctx.values[node] = _operation(ctx, node)
        elif node.op == "output":
            for argument in node.all_input_nodes:
                ctx.space.pin_all(ctx.axes(argument), "output", "the network's output is kept as it is")
    return ctx


def _placeholder(ctx: Context, node: fx.Node, graph: Graph, state: Mapping[str, Axes]) -> Axes | None:
    if node.name in graph.state_names:
        return state.get(graph.state_names[node.name])
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return None
    axes: list[Labels | None] = [None] * value.dim()
    if node.name in graph.inputs and value.dim() > 1:
        axes[1] = ctx.space.fresh(int(value.shape[1])) if isinstance(value.shape[1], int) else None
        ctx.space.pin(axes[1], "input", "the network's input is kept as it is")
    return tuple(axes)


def _operation(ctx: Context, node: fx.Node) -> Value:
    if not _tensors(node.meta.get("val")):
        return None
    if node.target is operator.getitem:
        parts, index = ctx.values.get(node.args[0]), node.args[1]  # type: ignore[arg-type]
        return parts[index] if isinstance(parts, tuple) and isinstance(index, int) else None  # type: ignore[return-value]
    known = _RULES.get(name_of(node))
    if known is None:
        return unknown(ctx, node, f"no rule for aten.{name_of(node)}: it may mix channels")
    value = known(ctx, node, bind(node))
    if not _fits(value, node.meta["val"]):
        return unknown(ctx, node, f"the rule for aten.{name_of(node)} cannot follow this use of it")
    return value


def _fits(value: Any, tensor: Any) -> bool:
    """Whether a rule's answer has a label, or None, for every index of every dimension."""
    if not isinstance(tensor, Tensor):
        return isinstance(value, tuple) and all(map(_fits, value, tensor))
    return (
        isinstance(value, tuple)
        and len(value) == tensor.dim()
        and all(own is None or len(own) == size for own, size in zip(value, tensor.shape, strict=True))
    )


def unknown(ctx: Context, node: fx.Node, reason: str) -> Value:
    """Pins all that flows into a node and gives its output no labels."""
    for argument in node.all_input_nodes:
        value = ctx.values.get(argument)
        nested = value if value and isinstance(value[0], tuple) else (value,)
        for axes in nested:
            ctx.pin(axes, node, reason)  # type: ignore[arg-type]
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        return (None,) * value.dim()
    return tuple((None,) * t.dim() for t in _tensors(value))


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [v for v in value if isinstance(v, Tensor)] if isinstance(value, tuple | list) else []


def blocks(labels: Labels, size: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Labels cut into rows of `size` consecutive indices."""
    return labels.reshape(-1, size)
