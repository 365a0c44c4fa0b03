"""Over which axes of weights operations sum what they read: there copies of a channel share one channel's part."""

from collections.abc import Iterator
from typing import Any

from torch import fx

from whyprune.structure.axes import Axis
from whyprune.structure.network import Network
from whyprune.structure.operations import CONVOLUTIONS, TRANSPOSED, bind, name_of, sizes
from whyprune.structure.products import RECURRENT


def input_axes(network: Network) -> frozenset[Axis]:
    """The axes of weights over which operations sum what they read."""
    held = network.graph.state_names
    found: set[Axis] = set()
    for node in network.graph.operations:
        for weight, axis in _summed(node):
            for source in _sources(weight):
                if source.name in held and sizes(source) == sizes(weight):
                    found.add((held[source.name], axis % len(sizes(weight))))
    return frozenset(found)


def _summed(node: fx.Node) -> Iterator[tuple[fx.Node, int]]:
    """The weights of an operation that sums over one of their axes, each with that axis."""
    name, bound = name_of(node), bind(node)
    pairs: list[tuple[Any, int]] = []
    if name in CONVOLUTIONS or name == "linear":
        pairs = [(bound["weight"], 1)]
    elif name in TRANSPOSED:
        inside = sizes(bound["weight"])[0] // bound["groups"]
        pairs = [(bound["weight"], 0)] if bound["groups"] == 1 or bound["groups"] < inside else []
    elif name in RECURRENT:
        pairs = [(weight, 1) for weight in bound["params"] if len(sizes(weight)) == 2]
    elif name.endswith("_cell"):
        pairs = [(bound.get(weight), 1) for weight in ("w_ih", "w_hh")]
    elif name in ("matmul", "mm", "bmm", "addmm", "baddbmm", "__matmul__"):
        factors = [bound[key] for key in ("self", "mat1", "batch1", "other", "mat2", "batch2") if key in bound]
        left, right = [f for f in factors if isinstance(f, fx.Node)][-2:]
        pairs = [(left, -1), (right, -2 if len(sizes(right)) > 1 else 0)]
    yield from ((weight, axis) for weight, axis in pairs if isinstance(weight, fx.Node) and len(sizes(weight)) > 1)


def _sources(value: fx.Node) -> Iterator[fx.Node]:
    """What a weight is computed from, itself included."""
    seen, waiting = {value}, [value]
    while waiting:
        node = waiting.pop()
        yield node
        fresh = [source for source in node.all_input_nodes if source not in seen]
        seen.update(fresh)
        waiting += fresh
