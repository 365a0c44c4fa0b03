"""The numbers that a pruned model's own code passes to operations, read off a second capture.

Outputs can agree by chance: a factor that falls on a channel which is zero on all inputs shows nowhere. Numbers cannot.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from typing import Any

from torch import Tensor, fx

from whyprune.structure.capture import Graph, recapture
from whyprune.structure.network import Network
from whyprune.structure.operations import at_batch, bind, name_at, name_of, sizes, tensors
from whyprune.structure.remove import remove
from whyprune.structure.schedule import Scaled, adjusted
from whyprune.structure.sites import WidthSite
from whyprune.structure.units import Group, Unit

MOST_ROUNDS = 4


def recaptured(network: Network, units: Sequence[Unit]) -> Graph | None:
    """The second capture, of the model without units; None where that fails."""
    return recapture(remove(network, units), network.example, network.graph)


def wrong_numbers(network: Network, units: Sequence[Unit], again: Graph | None = None) -> list[WidthSite]:
    """The sites at which the code of the model without units passes another number than it should.

    Where the second capture does not have the operations of the first, nothing is known of their numbers.

    Args:
        network: the network.
        units: what is removed.
        again: the second capture, if it is there already.
    """
    sites = _removable_sites(network)
    again = again or (recaptured(network, units) if sites else None)
    same = matched(network.graph.operations, again.nodes if again else ())
    gone = {u.label for u in units}
    return [s for s in sites if s.node in same and not _agrees(s, same[s.node], gone, len(network.example))]


def telling_removals(network: Network, seed: int = 0) -> list[list[Unit]]:
    """Random removals that every site counts, and that tell the groups apart; none where nothing counts any units.

    Code may compute one number from another: where two groups lose equal shares, nothing shows. So any two groups of
    one size lose different numbers of units in one of the removals at least, as far as a few of them can do that.
    """
    rng = random.Random(seed)
    sites = _removable_sites(network)
    if not sites:
        return []
    counted = {label for s in sites for label in s.labels.tolist()}
    same: dict[int, list[Group]] = defaultdict(list)
    for group in network.groups:
        if len(group.units) > 1 and not counted.isdisjoint(u.label for u in group.units):
            same[len(group.units)].append(group)
    rounds = max((_rounds(size, len(groups)) for size, groups in same.items()), default=1)
    removals = [random_removal(network, rng) for _ in range(rounds)]
    for size, groups in same.items():
        for place, group in enumerate(groups):
            for turn, drawn in enumerate(removals):
                drawn[group.name] = rng.sample(group.units, _lost(size, place, turn))
    _add_uncounted(network, sites, removals)
    return [[u for units in drawn.values() for u in units] for drawn in removals]


def random_removal(network: Network, rng: random.Random) -> dict[str, list[Unit]]:
    """Some units of every group, by its name; at least one goes and one stays, so none of groups of one."""
    groups = [g for g in network.groups if len(g.units) > 1]
    return {g.name: rng.sample(g.units, rng.randrange(1, len(g.units))) for g in groups}


def _rounds(size: int, groups: int) -> int:
    """How many digits tell so many groups apart."""
    digits = groups.bit_length() if size == 2 else next(n for n in range(1, groups + 1) if (size - 1) ** n >= groups)
    return min(digits, MOST_ROUNDS)


def _lost(size: int, place: int, turn: int) -> int:
    """How many of `size` units the group at a place among those of its size loses: a digit of its place."""
    if size == 2:
        return (place + 1) >> turn & 1
    base = size - 1
    step: int = base**turn
    return 1 + (place // step + size // 2) % base


def _removable_sites(network: Network) -> list[WidthSite]:
    removable = {u.label for u in network.units}
    return [s for s in network.sites if not removable.isdisjoint(s.labels.tolist())]


def _add_uncounted(network: Network, sites: Iterable[WidthSite], removals: Sequence[dict[str, list[Unit]]]) -> None:
    """Adds a unit to the first removal for every site that counts none of any; a unit of every group is left."""
    first, gone = removals[0], {u.label for drawn in removals for units in drawn.values() for u in units}
    by_label = {u.label: u for u in network.units}
    sizes_of = {g.name: len(g.units) for g in network.groups}
    for site in sites:
        counted = [by_label[x] for x in dict.fromkeys(site.labels.tolist()) if x in by_label]
        free = [u for u in counted if u.group in first and len(first[u.group]) < sizes_of[u.group] - 1]
        if free and gone.isdisjoint(u.label for u in counted):
            first[free[0].group].append(free[0])
            gone.add(free[0].label)


def matched(before: Sequence[fx.Node], after: Sequence[fx.Node]) -> dict[fx.Node, fx.Node]:
    """The operations of two captures that are the same ones."""
    left, right = [[n for n in nodes if _counts(n)] for nodes in (before, after)]
    names = [name_of(n) for n in left], [name_of(n) for n in right]
    if names[0] == names[1]:
        return dict(zip(left, right, strict=True))
    blocks = SequenceMatcher(None, *names, autojunk=False).get_matching_blocks()
    return {left[b.a + i]: right[b.b + i] for b in blocks for i in range(b.size)}


def _counts(node: fx.Node) -> bool:
    """Whether an operation gives a tensor; slices that keep all are left out where sizes are known."""
    if node.op != "call_function" or not tensors(node.meta.get("val")):
        return False
    source = node.args[0] if name_of(node) == "slice" else None
    return not (isinstance(source, fx.Node) and _keeps_all(node, source))


def _keeps_all(node: fx.Node, source: fx.Node) -> bool:
    value = source.meta.get("val")
    return isinstance(value, Tensor) and sizes(node) == sizes(source) and bind(node)["step"] == 1


def _agrees(site: WidthSite, other: fx.Node, gone: set[int], batch: int) -> bool:
    """Whether the pruned model's code passes the number that is left."""
    wanted = _number(_argument(site, *adjusted(site.node, [site], gone)), batch)
    found = _number(_argument(site, other.args, other.kwargs), batch)
    return wanted == found or None in (wanted, found)


def _argument(site: WidthSite, args: Sequence[Any], kwargs: Any) -> Any:
    held = args[site.argument] if site.argument < len(args) else kwargs.get(name_at(site.node, site.argument))
    return held[site.place] if isinstance(held, list | tuple) else held


def _number(value: Any, batch: int) -> int | None:
    """A number among an operation's arguments for a batch of a size; None where the operation finds it itself."""
    if isinstance(value, Scaled):
        return at_batch(value.node.meta["val"], batch) * value.kept // value.total
    if isinstance(value, fx.Node):
        return at_batch(value.meta["val"], batch)
    return value if type(value) is int and value != -1 else None
