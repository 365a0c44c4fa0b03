"""What each affine operation is refitted towards: the dense network's stream, where its output joins one."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from whyprune.repair.obstacles import obstacle, sources
from whyprune.repair.rows import Layout, layout_of
from whyprune.structure.operations import bind, name_of
from whyprune.structure.replay import Replay

_MOVING = (
    *("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "contiguous"),
    *("cat", "clone", "dropout", "feature_dropout"),
)


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
        relu: whether only ReLUs read the aim, moved to other places or not.
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
        if why_not(pruned, node) is None:
            after = pruned.producers.get(node, node)
            aim, other = _joined(after, done)
            found.append(
                RefitTarget(
                    node=node,
                    layout=layout_of(node, pruned.groups_of(node)),
                    data=bind(node)["input"],
                    aim=aim,
                    other=other,
                    relu=_into_relu(aim),
                    intercept=after is not node or bind(node)["bias"] is not None,
                )
            )
        done.add(node)
    return found


def why_not(pruned: Replay, node: fx.Node) -> str | None:
    """Why an operation is not refitted, in words that go on from its name; None where it is."""
    found = obstacle(node)
    return _without_place(pruned, node) if found is None else found


def unwritable(pruned: Replay, node: fx.Node, keys: Sequence[str]) -> str | None:
    """Why the weight or bias of an operation cannot be written: they have to be parameters of its own."""
    names, bound = pruned.network.graph.state_names, bind(node)
    trained = {name for name, _ in pruned.model.named_parameters()}
    for key in keys:
        held = [names.get(source.name, "") for source in sources(bound[key])]
        if any(name not in trained for name in held):
            return f"its {key} is no parameter"
        if any(list(names.values()).count(name) > 1 for name in held):
            return f"its {key} is used more than once"
    return None


def _without_place(pruned: Replay, node: fx.Node) -> str | None:
    """New weights need parameters; a following normalisation takes up any bias only by a scale and shift of its own."""
    if (found := unwritable(pruned, node, ("weight", "bias"))) is not None:
        return found
    norm = pruned.producers.get(node)
    if norm is None:
        return None
    state = bind(norm)
    if any(state[k] is None for k in ("weight", "bias", "running_mean")):
        return "the batch norm behind it has no scale and shift"
    shared = any(len(state[k].users) != 1 for k in ("weight", "bias", "running_mean"))
    return "the batch norm behind it is used more than once" if shared else None


def _into_relu(value: fx.Node) -> bool:
    return bool(value.users) and all(
        is_relu(user) or (name_of(user) in _MOVING and _into_relu(user)) for user in value.users
    )


def is_relu(node: fx.Node) -> bool:
    """Whether an operation is max(x, 0), however it is written."""
    name, bound = name_of(node), bind(node)
    if name == "threshold":
        return bool(bound["threshold"] == 0 and bound["value"] == 0)
    return name == "relu" or (name in ("clamp", "clamp_min") and bound["min"] == 0 and bound.get("max") is None)


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
