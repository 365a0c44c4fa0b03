"""Regions of an exported program, such as autocast, as plain operations of the program itself."""

import operator
from typing import Any

from torch import fx
from torch.export import ExportedProgram

_ARGUMENTS = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4}
"""Operation that runs a part of a program -> how many of its arguments come before that part."""


class RegionError(Exception):
    """A part of the program that only runs under a condition, or in a loop."""


def inlined(program: ExportedProgram) -> ExportedProgram:
    """The program, in place, with the operations of its regions where the regions were.

    Under autocast, operations compute in half precision; here they compute in the types of what they get, which is more
    precise.

    Raises:
        RegionError: a region is none of those that always run once.
    """
    graph = program.graph
    while regions := [n for n in graph.nodes if n.op == "call_function" and _part_of(n) is not None]:
        for node in regions:
            _inline(program, node)
    for node in reversed(list(graph.nodes)):
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)
    return program


def _part_of(node: fx.Node) -> fx.Node | None:
    """The part of the program that an operation runs."""
    return next((a for a in node.args if isinstance(a, fx.Node) and a.op == "get_attr" and "val" not in a.meta), None)


def _inline(program: ExportedProgram, node: fx.Node) -> None:
    name = getattr(node.target, "__name__", str(node.target))
    if name not in _ARGUMENTS:
        raise RegionError(f"{name} runs a part of the model by a condition or in a loop, which cannot be followed")
    first = _ARGUMENTS[name]
    part, given = node.args[first], node.args[first + 1 :]
    assert isinstance(part, fx.Node)
    held: Any = program.graph_module.get_submodule(str(part.target))
    places = [n for n in held.graph.nodes if n.op == "placeholder"]
    known: dict[fx.Node, Any] = dict(zip(places, given, strict=True))
    graph = program.graph
    returned: Any = ()
    with graph.inserting_before(node):
        for inner in held.graph.nodes:
            if inner.op == "output":
                returned = fx.node.map_arg(inner.args[0], known.__getitem__)
            elif inner.op == "get_attr":
                path = f"{part.target}.{inner.target}"
                known[inner] = graph.create_node("get_attr", path)
                known[inner].meta = dict(inner.meta)
            elif inner.op != "placeholder":
                known[inner] = graph.node_copy(inner, known.__getitem__)
    for user in list(node.users):
        if user.target is operator.getitem:
            user.replace_all_uses_with(returned[user.args[1]])
            graph.erase_node(user)
    if not isinstance(returned, list | tuple) and node.users:
        node.replace_all_uses_with(returned)
    graph.erase_node(node)
