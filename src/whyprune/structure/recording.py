"""A straight line of recorded operations: what belongs to it, what of it is dead, and the module that runs it."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import traceback
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Recording:
    """Recorded operations.

    Attributes:
        graph: placeholders for the input tensors, `get_attr` for the model's state and for constants.
        state: name of a parameter or buffer -> it.
        constants: name of a tensor that is neither input nor state nor computed -> it.
        out_spec: how the flat outputs fold back into what the model returns.
    """

    graph: fx.Graph
    state: dict[str, Tensor]
    constants: dict[str, Tensor]
    out_spec: Any

    def arguments(self, node: fx.Node) -> list[Any]:
        """A node's arguments, flat; of a constant its tensor."""
        if node.op == "get_attr" and node.target in self.constants:
            return [self.constants[str(node.target)]]
        return pytree.tree_leaves((node.args, node.kwargs))


class RecordedModule(nn.Module):
    """Runs recorded operations on flat input tensors and returns the flat outputs.

    Attributes:
        recording: what was recorded.
        free: whether the operations hold for any batch size.
        at: the operation that runs, or ran last.
    """

    def __init__(self, recording: Recording, free: bool) -> None:
        super().__init__()
        self.recording, self.free = recording, free
        self.at: fx.Node | None = None
        self.operations = fx.GraphModule({**recording.state, **recording.constants}, recording.graph)

    def forward(self, inputs: tuple[Tensor, ...]) -> Any:
        """The flat outputs."""
        with traceback.preserve_node_meta():
            return _Runner(self).run(*inputs)

    def state_names(self) -> dict[str, str]:
        """Name of a parameter or buffer in this module -> its name in the model."""
        return {f"operations.{name}": name for name in self.recording.state}


class _Runner(fx.Interpreter):
    """Runs the recording and notes where it is."""

    def __init__(self, owner: RecordedModule) -> None:
        super().__init__(owner.operations)
        self.owner = owner

    def run_node(self, n: fx.Node) -> Any:
        self.owner.at = n
        return super().run_node(n)


def drop_dead(graph: fx.Graph) -> None:
    """Removes what the outputs do not depend on; a write counts where its tensor is read later."""
    memory: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        shared = _shared(node)
        memory[node] = memory[shared[0]] if shared else node
    read: set[fx.Node] = set()
    for node in reversed(list(graph.nodes)):
        writes = any(memory[n] in read for n in _shared(node, written=True))
        if node.op in ("placeholder", "output") or node.users or writes:
            read.update(memory[n] for n in node.all_input_nodes)
        else:
            graph.erase_node(node)


def _shared(node: fx.Node, written: bool = False) -> list[fx.Node]:
    """The arguments whose memory an operation's result may share, or those that it writes to."""
    if node.target is operator.getitem and not written:
        return node.all_input_nodes[:1]
    schema = getattr(node.target, "_schema", None)
    found: list[Any] = []
    for position, argument in enumerate(schema.arguments if schema is not None else ()):
        if argument.alias_info is not None and (argument.alias_info.is_write or not written):
            given = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
            found.extend(pytree.tree_leaves(given))
    return [value for value in found if isinstance(value, fx.Node)]


def with_batch_size(recording: Recording, multiples: Mapping[tuple[int, int], int]) -> None:
    """Replaces numbers in recorded operations by multiples of the first input's batch size.

    Args:
        recording: the operations; changed in place.
        multiples: (position of a node, position among its flat arguments) -> what to multiply the size by.
    """
    if not multiples:
        return
    nodes, graph = list(recording.graph.nodes), recording.graph
    inputs = [n for n in nodes if n.op == "placeholder"]
    image = next(n for n in inputs if n.meta["val"].dim())
    with graph.inserting_after(inputs[-1]):
        size = graph.call_function(torch.ops.aten.sym_size.int, (image, 0))
    products: dict[int, fx.Node] = {1: size}
    for (position, place), factor in multiples.items():
        if factor not in products:
            with graph.inserting_after(size):
                products[factor] = graph.call_function(operator.mul, (size, factor))
        node = nodes[position]
        leaves, spec = pytree.tree_flatten((node.args, node.kwargs))
        leaves[place] = products[factor]
        node.args, node.kwargs = pytree.tree_unflatten(leaves, spec)
