"""Which layers lose channels and are not refitted, and why: what repair cannot do is said, never passed over."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import fx

from whyprune.repair.obstacles import PRODUCTS, RECURRENT
from whyprune.repair.targets import why_not
from whyprune.structure.network import Network
from whyprune.structure.operations import AFFINE, name_of, where
from whyprune.structure.replay import Replay
from whyprune.structure.state import State

NAMED = 4
"""So many layers are named in one sentence."""


@dataclass(frozen=True)
class Unrefitted:
    """A layer with weights that repair leaves as they are.

    Attributes:
        where: its module and line.
        reason: why, in words.
    """

    where: str
    reason: str


def unrefitted(start: Network | State) -> tuple[Unrefitted, ...]:
    """The layers that read or write channels that go, and are not refitted.

    Args:
        start: a state: channels that it has lost count; a network: all that can go.
    """
    state = State.of(start)
    replay = Replay.of(state)
    labels = [unit.label for unit in (state.network.units if isinstance(start, Network) else state.removed)]
    found = {}
    for node in replay.order:
        if name_of(node) in (*AFFINE, *RECURRENT, *PRODUCTS) and _loses(replay, node, labels):
            reason = why_not(replay, node)
            if reason is not None:
                found[where(node), reason] = Unrefitted(where(node), reason)
    return tuple(found.values())


def sentence(layers: Iterable[Unrefitted], done: str = "refitted") -> str:
    """What is not refitted, or otherwise repaired, in one sentence for a person; empty where all is."""
    layers = tuple(layers)
    if not layers:
        return ""
    said = "; ".join(f"{layer.where}: {layer.reason}" for layer in layers[:NAMED])
    more = f"; and {len(layers) - NAMED} more" if len(layers) > NAMED else ""
    lost = "1 layer that lost channels was" if len(layers) == 1 else f"{len(layers)} layers that lost channels were"
    return f"{lost} not {done}: {said}{more}."


def _loses(replay: Replay, node: fx.Node, labels: Sequence[int]) -> bool:
    """Whether any of these channels lies along a weight of an operation."""
    network = replay.network
    return any(
        np.isin(channels, labels).any()
        for argument in node.all_input_nodes
        if replay.is_fixed(argument) and len(argument.meta["val"].shape) > 1
        for _, channels in network.extents.get(argument, ())
    )
