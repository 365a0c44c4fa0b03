"""What each affine operation is refitted towards: the dense network's stream, where its output joins one."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from whyprune.repair.rows import Layout, layout
from whyprune.structure.operations import bind, name_of
from whyprune.structure.replay import Replay


@dataclass(frozen=True)
class RefitTarget:
    """One operation to refit.

    Attributes:
        node: the affine operation.
        layout: how its rows are laid out.
        data: what it reads.
        aim: the node whose dense value is to be matched: its own output after normalisation, or the sum that
            output joins (the dense stream, so that errors made earlier are corrected and do not pile up).
        other: the other summand, taken from the pruned network; None without a sum.
        relu: whether only a ReLU reads the aim.
        intercept: whether the layer has a bias, its own or its normalisation's.
    """

    node: fx.Node
    layout: Layout
    data: fx.Node
    aim: fx.Node
    other: fx.Node | None
    relu: bool
    intercept: bool


def targets(pruned: Replay, order: Sequence[fx.Node]) -> list[RefitTarget]:
    """All operations to refit, in the order in which they run."""
    found = []
    graph = pruned.network.graph
    done: set[fx.Node] = {n for n in graph.nodes if n.op == "placeholder" and n.name in graph.inputs}
    for node in order:
        how = layout(node)
        if how is not None and node in pruned.network.written and _writable(pruned, node):
            after = pruned.producers.get(node, node)
            aim, other = _joined(after, done)
            found.append(
                RefitTarget(
                    node=node,
                    layout=how,
                    data=bind(node)["input"],
                    aim=aim,
                    other=other,
                    relu=bool(aim.users) and all(name_of(u) == "relu" for u in aim.users),
                    intercept=after is not node or bind(node)["bias"] is not None,
                )
            )
        done.add(node)
    return found


def _writable(pruned: Replay, node: fx.Node) -> bool:
    """A following normalisation can take up any bias only if it has a scale and a shift of its own."""
    norm = pruned.producers.get(node)
    if norm is None:
        return all(name_of(u) != "batch_norm" for u in node.users)
    bound = bind(norm)
    return all(bound[k] is not None and len(bound[k].users) == 1 for k in ("weight", "bias", "running_mean"))


def _joined(after: fx.Node, done: set[fx.Node]) -> tuple[fx.Node, fx.Node | None]:
    """(the sum that a value joins, its other summand) if that summand is already known; else the value itself."""
    users = list(after.users)
    if len(users) != 1 or name_of(users[0]) != "add" or bind(users[0]).get("alpha", 1) != 1:
        return after, None
    left, right = users[0].args[:2]
    other = right if left is after else left
    if not isinstance(other, fx.Node) or other is after or other not in done:
        return after, None
    same = tuple(map(str, other.meta["val"].shape)) == tuple(map(str, after.meta["val"].shape))
    return (users[0], other) if same else (after, None)
