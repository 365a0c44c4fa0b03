"""Trying out whether a model's own code follows a removal."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, fx

from whyprune.data.outputs import tensors_of
from whyprune.structure.capture import first_line
from whyprune.structure.labelled import Labelled
from whyprune.structure.network import Network
from whyprune.structure.numbers import telling_removals, wrong_numbers
from whyprune.structure.operations import name_of, tensors, where
from whyprune.structure.precise import in_double
from whyprune.structure.remove import masked, remove
from whyprune.structure.sites import AttributeRule, Candidate, WidthSite, candidates, named, options
from whyprune.structure.training import training_error
from whyprune.structure.units import Group, Unit

TOLERANCE = 1e-3
MANY = 10_000
_WITH_NUMBERS = frozenset({
    *("view", "reshape", "_unsafe_view", "unflatten", "expand", "repeat", "slice", "narrow", "split", "pad", "select"),
    *("split_with_sizes", "constant_pad_nd", "index", "zeros", "ones", "full"),
})  # fmt: skip


def settle(labelled: Labelled) -> Network:
    """The network whose every removal the model's code can follow: attributes are found, the rest is refused."""
    while True:
        prober = _Prober(labelled)
        if refused := prober.run():
            if _tied(labelled, refused):
                continue
            _refuse(labelled, refused)
        elif broken := _broken(prober.network):
            for group, error in broken:
                labels = np.array([u.label for u in group.units])
                labelled.refuse(labels, group.name, f"the model's code cannot follow a removal here: {error}")
        elif stuck := _stuck_in_training(labelled, prober.network):
            for group, error in stuck:
                labels = np.array([u.label for u in group.units])
                labelled.refuse(labels, group.name, f"the model does not train without them: {error}")
        elif wrong := [s for r in telling_removals(prober.network) for s in wrong_numbers(prober.network, r)]:
            _refuse(labelled, wrong)
        else:
            return prober.network


def _refuse(labelled: Labelled, sites: Iterable[WidthSite]) -> None:
    for site in sites:
        reason = f"{name_of(site.node)} there names a width as the constant {site.value}"
        labelled.refuse(site.labels, where(site.node), reason)


def _tied(labelled: Labelled, refused: Sequence[WidthSite]) -> bool:
    """Lets heads go with the channels of a stream of the same width, if that makes their sites right.

    Code that computes the width of its heads from the stream (`C // heads`) can only follow if both shrink in step.
    """
    left = list(refused)
    for group in labelled.network().groups:
        own = {u.label for u in group.units}
        sites = [s for s in left if group.width == s.value == len(s.labels) and own.isdisjoint(s.labels.tolist())]
        if not sites:
            continue
        saved = labelled.save()
        labelled.tie(group, sites)
        if _Prober(labelled).mends({(s.node, s.argument, s.place) for s in sites}):
            left = [s for s in left if s not in sites]
        else:
            labelled.restore(saved)
    return len(left) < len(refused)


def _broken(network: Network) -> list[tuple[Group, str]]:
    """Groups whose removal the model's code does not follow, alone or beside others: half of all is removed."""
    if not _may_fail(network):
        return []
    halves = _halves(network)
    kept: list[Unit] = []
    broken = []
    for group in network.groups:
        if error := failure(network, [*kept, *halves[group.name]]):
            broken.append((group, error))
        else:
            kept += halves[group.name]
    return broken


def _stuck_in_training(labelled: Labelled, network: Network) -> list[tuple[Group, str]]:
    """Groups without which the model no longer runs in training mode, where that is another computation."""
    if not labelled.trains:
        return []
    halves, kept, stuck = _halves(network), list[Unit](), []
    if not training_error(remove(network, [u for half in halves.values() for u in half]), network.example):
        return []
    for group in network.groups:
        if error := training_error(remove(network, [*kept, *halves[group.name]]), network.example):
            stuck.append((group, error))
        else:
            kept += halves[group.name]
    return stuck


def _may_fail(network: Network) -> str:
    """What is wrong with the model when half of all is removed, if its operations take numbers at all."""
    if not network.groups or not _has_numbers(network):
        return ""
    return failure(network, [u for half in _halves(network).values() for u in half])


def _halves(network: Network) -> dict[str, list[Unit]]:
    return {g.name: list(g.units[: max(1, len(g.units) // 2)]) for g in network.groups}


def _has_numbers(network: Network) -> bool:
    """Whether any operation takes numbers that may come from a width."""
    return any(name_of(node) in _WITH_NUMBERS for node in network.graph.operations)


def failure(network: Network, units: Sequence[Unit]) -> str:
    """What is wrong with the model without units, beside the masked original; nothing if all is right."""
    try:
        found = _difference(small(network), units)
        if found > tolerance(network):
            found = _difference(in_double(network), units)  # rounding, amplified by many layers, is no mistake
    except Exception as error:  # noqa: BLE001 - whatever the user's code raises, the answer is the same
        return first_line(error)
    return "" if found <= tolerance(network) else f"its outputs differ by {found:.3g}"


def small(network: Network) -> Network:
    """The network with one sample as its example, where any batch size runs and a sample has many values."""
    values = min((t[0].numel() for t in network.example.tensors()), default=0)
    if network.graph.batch_size is not None or values < MANY:
        return network
    return replace(network, example=network.example[:1])


def _difference(network: Network, units: Sequence[Unit]) -> float:
    """How far the outputs are from the masked original's; where the pruned model does not run, that one is not made."""
    with torch.no_grad():
        found = tensors_of(network.example.call(remove(network, units)))
        expected = tensors_of(network.example.call(masked(network, units)))
    return max((relative(a, b) for a, b in zip(found, expected, strict=True)), default=0.0)


@dataclass
class _Prober:
    """One pass over all groups that a number in the code counts."""

    labelled: Labelled
    network: Network = field(init=False)
    fixed: tuple[AttributeRule, ...] = field(init=False)
    open: list[WidthSite] = field(init=False)
    learned: set[tuple[str, str, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        model, sites = self.labelled.model, self.labelled.sites()
        known = [(site, named(model, site)) for site in sites]
        self.fixed = tuple(c.rule() for _, c in known if c is not None)
        self.network = self.labelled.network(self.fixed)
        removable = {u.label for u in self.network.units}
        self.open = [s for s, c in known if c is None and not removable.isdisjoint(s.labels.tolist())]

    def run(self) -> list[WidthSite]:
        """Finds the attributes that follow; returns the sites that nothing makes right."""
        units = self._units(self.open)
        if self._pass_apart(units):
            return []
        refused: list[WidthSite] = []
        for unit in units:
            learned = len(self.learned)
            if not self._follows(unit):
                refused += self._sites_of(unit)
            elif not refused and len(self.learned) > learned and self._pass_apart(units):
                return []
        return refused or ([] if self._passes(units) else self.open)

    def mends(self, places: Collection[tuple[fx.Node, int, int]]) -> bool:
        """Whether every site at these places counts a unit that can go, and its removal is followed."""
        sites = [s for s in self.open if (s.node, s.argument, s.place) in places]
        return len(sites) == len(places) and all(self._follows(unit) for unit in self._units(sites))

    def _follows(self, unit: Unit) -> bool:
        """Whether a unit can go, as the attributes are or with further ones that follow."""
        if self._passes([unit]):
            return True
        model, before = self.labelled.model, self.learned
        for keys in options([c for site in self._sites_of(unit) for c in candidates(model, site, self.open)]):
            self.learned = before | keys
            self._apply()
            if self._passes([unit]):
                return True
        self.learned = before
        self._apply()
        return False

    def _apply(self) -> None:
        """The network in which all learned attributes follow."""
        found: list[Candidate] = [c for s in self.open for c in candidates(self.labelled.model, s, self.open)]
        rules = (*self.fixed, *(c.rule() for c in found if c.key in self.learned))
        self.network = self.labelled.network(rules)

    def _sites_of(self, unit: Unit) -> list[WidthSite]:
        return [s for s in self.open if unit.label in s.labels]

    def _units(self, sites: Sequence[WidthSite]) -> list[Unit]:
        """For every number one unit that it counts, each once."""
        found: dict[int, Unit] = {}
        for site in sites:
            if not any(label in site.labels for label in found):
                unit = next(u for u in self.network.units if u.label in site.labels)
                found[unit.label] = unit
        return list(found.values())

    def _pass_apart(self, units: Sequence[Unit]) -> bool:
        """Whether all units can go at once, and any one of them without any other.

        Code may compute one number from another: then two units can go together and neither can alone. By the bits of
        their places, every two units are told apart in few removals.
        """
        places = range(len(units))
        bits = range((len(units) - 1).bit_length()) if units else ()
        halves = [{k for k in places if k >> bit & 1 == side} for bit in bits for side in (0, 1)]
        return all(self._passes([units[k] for k in sorted(half)]) for half in [set(places), *halves] if half)

    def _passes(self, units: Sequence[Unit]) -> bool:
        return not failure(self.network, units)


def tolerance(network: Network) -> float:
    """How far the outputs of two ways to compute the same may differ, relative to their size."""
    held = [*network.model.parameters(), *network.model.buffers()]
    if network.graph.precision is None:  # under autocast, values are less precise than the weights
        held += [v for n in network.graph.operations for v in tensors(n.meta.get("val"))]
    return max([TOLERANCE, *(8 * torch.finfo(kind).eps for kind in {t.dtype for t in held} if kind.is_floating_point)])


def relative(left: Tensor, right: Tensor) -> float:
    """The largest difference, relative to the second where that is above 1; infinite for other shapes."""
    if left.shape != right.shape:
        return float("inf")
    if not right.numel():
        return 0.0
    return float((left.double() - right.double()).abs().max() / right.double().abs().max().clamp_min(1.0))
