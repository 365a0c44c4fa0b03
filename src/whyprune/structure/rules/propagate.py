"""The pass that runs the rules over a captured graph."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from whyprune.structure.capture import Graph
from whyprune.structure.labels import Labellings, LabelSpace, along, support
from whyprune.structure.operations import arguments, bind, functional, is_pointwise, name_of, sizes, tensors, where
from whyprune.structure.rules.base import RULES, Context, Rectangle, Value

RAGGED = "they are spread over several dimensions of one tensor, which can only lose whole indices of one"


def propagate(
    graph: Graph,
    space: LabelSpace,
    state: Mapping[str, Labellings],
    values: Mapping[str, Tensor],
    heads: str,
    inputs: Sequence[Labellings] | None = None,
) -> Context:
    """Runs every node's rule in execution order; network inputs and outputs are pinned.

    Args:
        graph: the captured network.
        space: where atoms live.
        state: parameter or buffer name -> its labellings.
        values: buffer name -> its tensor, for indices that the model holds.
        heads: whether attention goes by "whole" heads or by the "width" of all heads.
        inputs: the labellings of the network's inputs, where another graph of the same network has them already.
    """
    held = frozenset(n for n in graph.nodes if n.op == "placeholder" and n.name in graph.state_names)
    ctx = Context(space, Known(graph, values), heads, held)
    for node in graph.nodes:
        if node.op == "placeholder":
            known = inputs is not None and node.name in graph.inputs
            ctx.values[node] = (
                inputs[graph.inputs.index(node.name)]
                if known and inputs is not None
                else _placeholder(ctx, node, graph, state)
            )
        elif node.op == "call_function":
            ctx.values[node] = _operation(ctx, node)
            _keep_rectangular(ctx, node)
        elif node.op == "output":
            for argument in node.all_input_nodes:
                for labellings in _each(ctx.values.get(argument)):
                    for labelling in labellings:
                        ctx.space.pin(labelling, "output", "the network's output is kept as it is")
    return ctx


def _placeholder(ctx: Context, node: fx.Node, graph: Graph, state: Mapping[str, Labellings]) -> Labellings:
    if node.name in graph.state_names:
        return state.get(graph.state_names[node.name], ())
    value = node.meta.get("val")
    if node.name not in graph.inputs or not isinstance(value, Tensor) or value.dim() < 2:
        return ()
    size = value.shape[1]
    if not isinstance(size, int) or size == 1:
        return ()
    labelling = along(ctx.space.fresh(size), 1, value.dim())
    ctx.space.pin(labelling, "input", "the network's input is kept as it is", named=True)
    return (labelling,)


def _operation(ctx: Context, node: fx.Node) -> Value:
    if not tensors(node.meta.get("val")):
        return None
    if node.target is operator.getitem:
        parts, index = ctx.values.get(node.args[0]), node.args[1]  # type: ignore[arg-type]
        return parts[index] if isinstance(parts, list) and isinstance(index, int) else ()
    known = RULES.get("pointwise" if name_of(node) not in RULES and is_pointwise(node) else name_of(node))
    if known is None:
        return unknown(ctx, node, f"no rule for aten.{name_of(node)}: it may mix channels")
    value = known(ctx, node, bind(node))
    if value is None or not _fits(value, node.meta["val"], node):
        return unknown(ctx, node, f"the rule for aten.{name_of(node)} cannot follow this use of it")
    return value


def _each(value: Value) -> list[Labellings]:
    return value if isinstance(value, list) else [value or ()]


def _fits(value: Value, meta: Any, node: fx.Node) -> bool:
    """Whether a rule's labellings have the operation's shape."""
    if isinstance(meta, Tensor):
        full = sizes(node)
        return isinstance(value, tuple) and all(
            labelling.dim() == len(full)
            and all(own in (1, size) for own, size in zip(labelling.shape, full, strict=True))
            for labelling in value
        )
    return isinstance(value, list) and len(value) == len(tensors(meta))


def _keep_rectangular(ctx: Context, node: fx.Node) -> None:
    for labellings in _each(ctx.values[node]):
        for labelling in labellings:
            if len(support(labelling)) > 1:
                ctx.rectangles.append(Rectangle(labelling, support(labelling), where(node), RAGGED))


def unknown(ctx: Context, node: fx.Node, reason: str) -> Value:
    """Pins all that flows into a node and gives its output no labels."""
    for argument in node.all_input_nodes:
        for labellings in _each(ctx.values.get(argument)):
            for labelling in labellings:
                ctx.space.pin(labelling, where(node), reason, named=True)
    value = node.meta.get("val")
    return () if isinstance(value, Tensor) else [() for _ in tensors(value)]


class Known:
    """Values that do not depend on the inputs or on parameters: index tables, mostly."""

    def __init__(self, graph: Graph, values: Mapping[str, Tensor]) -> None:
        self._values: dict[fx.Node, Tensor | None] = {}
        for node in graph.nodes:
            if node.op == "placeholder":
                name = graph.state_names.get(node.name, "")
                self._values[node] = values.get(name, graph.constants.get(node.name))

    def __call__(self, node: fx.Node) -> Tensor | None:
        """The value of a node for one sample, or None where it depends on more."""
        if node not in self._values:
            self._values[node] = self._compute(node)
        return self._values[node]

    def _compute(self, node: fx.Node) -> Tensor | None:
        inputs = [n for n in node.all_input_nodes if isinstance(n.meta.get("val"), Tensor)]
        others = [n for n in node.all_input_nodes if n not in inputs]
        if node.op != "call_function" or others or any(self(n) is None for n in inputs):
            return None
        args, kwargs = arguments(node, self)
        with torch.no_grad():
            found = functional(node.target)(*args, **kwargs)
        return found if isinstance(found, Tensor) else None
