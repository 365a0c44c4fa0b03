"""What a replay needs to know of a graph before it runs: which function, which arguments, in which order."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from whyprune.structure.rules.base import WidthSite


def functional(target: Any) -> Any:
    """The operation that returns what an in-place one would have written; kept values stay as they are."""
    if target is torch.ops.aten.view.default:  # a view asks for one memory layout; the value is the same
        return torch.ops.aten.reshape.default
    schema = getattr(target, "_schema", None)
    if schema is None or not schema.name.endswith("_") or schema.name.endswith("__"):
        return target
    packet = getattr(torch.ops.aten, schema.name.split("::")[-1].rstrip("_"), None)
    return target if packet is None else getattr(packet, target._overloadname)


def adjusted(
    node: fx.Node, sites: Iterable[WidthSite], gone: Collection[int]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """An operation's arguments, with the numbers that count channels brought down to what is left.

    Args:
        node: the operation.
        sites: numbers in the graph's arguments that count channels.
        gone: labels of the removed channels.
    """
    args = list(node.args)
    for site in sites:
        if site.node is node and gone:
            left = [int((~np.isin(side, list(gone))).sum()) for side in site.sides]
            args[site.argument] = _with_numbers(args[site.argument], dict(zip(site.places, left, strict=True)))
    return tuple(args), dict(node.kwargs)


def _with_numbers(argument: Any, numbers: Mapping[int, int]) -> Any:
    """A list with some of its entries replaced; a lone number is replaced by the only one given."""
    if isinstance(argument, int):
        return numbers[0]
    return [numbers.get(place, old) for place, old in enumerate(argument)]


def state_only(operations: Iterable[fx.Node], bound: Collection[fx.Node]) -> frozenset[fx.Node]:
    """Parameters, buffers, constants (`bound`), and the operations that depend on nothing else."""
    fixed = set(bound)
    for node in operations:
        if node.all_input_nodes and fixed.issuperset(node.all_input_nodes):
            fixed.add(node)
    return frozenset(fixed)


def last_use(steps: Sequence[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    """Step -> the values that no later step reads."""
    seen: set[fx.Node] = set()
    last: dict[fx.Node, list[fx.Node]] = {}
    for node in reversed(steps):
        for argument in node.all_input_nodes:
            if argument not in seen:
                seen.add(argument)
                last.setdefault(node, []).append(argument)
    return last
