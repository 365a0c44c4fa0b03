"""Units that reach only outputs that do not count: no outcome can see what they do, so they are kept."""

from collections.abc import Iterable

from torch import fx

from whyprune.structure.network import Network
from whyprune.structure.units import Refusal


def without_unseen(network: Network) -> Network:
    """The same network, in which units stay that no output that counts depends on, though another output does."""
    counting = {t.node for t in network.outputs.counting}
    others = {t.node: t.name for t in network.outputs.tensors if t.node not in counting}
    if not counting or not others:
        return network
    seen = _before(counting)
    reached = {name: _before([node]) for node, name in others.items()}
    readers: dict[int, list[fx.Node]] = {}
    for reader in network.readers:
        for label in set(reader.labels.tolist()):
            readers.setdefault(label, []).append(reader.node)
    kept, refusals = [], []
    for group in network.groups:
        mine = [u for u in group.units if not any(n in seen for n in readers.get(u.label, ()))]
        nodes = {n for u in mine for n in readers.get(u.label, ())}
        names = [name for name, nodes_before in reached.items() if nodes & nodes_before]
        if names:  # what reaches no output at all may go
            kept += mine
            listed = ", ".join(repr(name) for name in names)
            reason = f"they reach only the output {listed}, which does not count: choose it with outputs=…"
            axes = tuple((parameter, axis) for parameter, axis, _ in group.axes)
            refusals.append(Refusal(group.name, reason, len(mine), axes))
    return network.keeping(kept, refusals)


def _before(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """These nodes and all that they depend on."""
    pending = list(nodes)
    found = set(pending)
    while pending:
        for node in pending.pop().all_input_nodes:
            if node not in found:
                found.add(node)
                pending.append(node)
    return found
