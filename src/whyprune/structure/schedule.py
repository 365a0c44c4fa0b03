"""What a replay needs to know of a graph before it runs: which function, which arguments, in which order."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from whyprune.structure.operations import name_at
from whyprune.structure.sites import WidthSite


@dataclass(frozen=True)
class Scaled:
    """A number that is a multiple of the batch size, of whose factor `kept` of `total` are left."""

    node: fx.Node
    kept: int
    total: int


def adjusted(
    node: fx.Node, sites: Iterable[WidthSite], gone: Collection[int]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """An operation's arguments, with the numbers that count channels brought down to what is left.

    Args:
        node: the operation.
        sites: the numbers of this operation that count channels.
        gone: labels of the removed channels.
    """
    args, kwargs = list(node.args), dict(node.kwargs)
    for site in sites if gone else ():
        kept = int((~np.isin(site.labels, list(gone))).sum())
        name = name_at(node, site.argument)
        if site.argument < len(args):
            args[site.argument] = _with_number(args[site.argument], site, kept)
        elif name in kwargs:
            kwargs[name] = _with_number(kwargs[name], site, kept)
    return tuple(args), kwargs


def _with_number(argument: Any, site: WidthSite, kept: int) -> Any:
    """A number, or a list with one of its numbers, brought down to `kept`; or further, where another site has been."""
    if isinstance(argument, list | tuple):
        return [_with_number(old, site, kept) if place == site.place else old for place, old in enumerate(argument)]
    if isinstance(argument, fx.Node):
        return Scaled(argument, kept, len(site.labels))
    if argument != site.value:  # a number of pixels times channels counts both, and loses of both
        return argument * kept // len(site.labels)
    return -kept if site.value < 0 else kept


def state_only(operations: Iterable[fx.Node], bound: Collection[fx.Node]) -> frozenset[fx.Node]:
    """Parameters, buffers, constants (`bound`), and the operations that depend on nothing else."""
    fixed = set(bound)
    for node in operations:
        if fixed.issuperset(node.all_input_nodes):  # what takes no tensor at all (arange) included
            fixed.add(node)
    return frozenset(fixed)


def sized_only(operations: Iterable[fx.Node], fixed: Collection[fx.Node]) -> frozenset[fx.Node]:
    """Tensors that depend on how many images there are, not on which: the zeros that a recurrent layer starts from."""
    numbers: set[fx.Node] = set()
    found: set[fx.Node] = set()
    for node in operations:
        if isinstance(node.meta.get("val"), torch.SymInt | torch.SymFloat | torch.SymBool | int | float):
            numbers.add(node)
        elif node not in fixed and all(a in fixed or a in numbers or a in found for a in node.all_input_nodes):
            found.add(node)
    return frozenset(found)


def last_use(
    steps: Sequence[fx.Node], reads: Callable[[fx.Node], Sequence[fx.Node]] = lambda node: node.all_input_nodes
) -> dict[fx.Node, list[fx.Node]]:
    """Step -> the values that no later step reads."""
    seen: set[fx.Node] = set()
    last: dict[fx.Node, list[fx.Node]] = {}
    for node in reversed(steps):
        for argument in reads(node):
            if argument not in seen:
                seen.add(argument)
                last.setdefault(node, []).append(argument)
    return last
