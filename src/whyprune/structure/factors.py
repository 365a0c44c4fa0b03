"""Numbers that a model's code calculates with, read off a second capture: `1 / sqrt(width)` changes with the width.

The pruned model then computes another function of the channels that stay. Outputs may show that too little on a few
inputs, or not at all; the numbers of two captures differ or they do not.
"""

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from whyprune.structure.capture import Graph
from whyprune.structure.network import Network
from whyprune.structure.numbers import matched, random_removal, recaptured
from whyprune.structure.operations import is_pointwise, name_of
from whyprune.structure.units import Group, Unit

_CALCULATE = frozenset({
    *("add", "sub", "rsub", "mul", "div", "floor_divide", "pow", "full", "full_like", "scalar_tensor"),
    *("addmm", "baddbmm", "addbmm", "scaled_dot_product_attention"),
})  # fmt: skip


def rescaled(network: Network, units: Sequence[Unit], again: Graph | None = None) -> fx.Node | None:
    """The first operation that calculates with another number when units go; None where there is none or none is known.

    Args:
        network: the network.
        units: what is removed.
        again: the second capture, if it is there already.
    """
    if not _calculates(network.graph):
        return None
    again = again or recaptured(network, units)
    if again is None:
        return None
    before, after = network.graph.operations, again.operations
    same = matched(before, after)
    if len(same) < max(len(matched(side, side)) for side in (before, after)):
        return None  # other operations: which number belongs to which is a guess
    pairs = ((one, other) for one, other in same.items() if _differ(_numbers(one), _numbers(other)))
    return next((one for one, _ in pairs), None) or _with_other_constant(network.graph, again)


def rescaling_groups(network: Network, seed: int = 0) -> list[tuple[Group, fx.Node]]:
    """The groups on whose widths such numbers depend, each with an operation; by halves, a removal at a time."""
    drawn = random_removal(network, random.Random(seed))
    return _rescaling(network, [g for g in network.groups if g.name in drawn], drawn)


def _rescaling(network: Network, groups: Sequence[Group], drawn: dict[str, list[Unit]]) -> list[tuple[Group, fx.Node]]:
    node = rescaled(network, [u for g in groups for u in drawn[g.name]]) if groups else None
    if node is None:
        return []
    middle = len(groups) // 2
    halves = (groups[:middle], groups[middle:]) if middle else ()
    found = [pair for half in halves for pair in _rescaling(network, half, drawn)]
    return found or [(g, node) for g in groups]


def _calculates(graph: Graph) -> bool:
    """Whether any operation calculates with a number of the code, and not with values and parameters alone."""
    named = (n for n in graph.operations if name_of(n) in _CALCULATE)
    return any(_numbers(n) for n in named) or any(t.numel() == 1 for t in graph.constants.values())


def _numbers(node: fx.Node) -> list[Any]:
    """What an operation calculates with, None for what is no number; whole numbers elsewhere are sizes and places."""
    kinds: tuple[type, ...] = (float, int) if is_pointwise(node) or name_of(node) in _CALCULATE else (float,)
    return [value if type(value) in kinds else None for value in (*node.args, *node.kwargs.values())]


def _differ(before: Sequence[Any], after: Sequence[Any]) -> bool:
    return any(a != b for a, b in zip(before, after, strict=False) if a is not None and b is not None)


def _with_other_constant(before: Graph, after: Graph) -> fx.Node | None:
    """The first operation that reads a constant tensor of one number (`torch.tensor(width)`) with another value."""
    if before.constants.keys() != after.constants.keys():
        return None
    changed = {k for k, t in before.constants.items() if t.numel() == 1 and not torch.equal(t, after.constants[k])}
    return next((n for n in before.operations if any(a.name in changed for a in n.all_input_nodes)), None)
