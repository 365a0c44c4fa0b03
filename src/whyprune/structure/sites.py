"""Numbers in a network's code that count channels: which follow a removal by themselves, which by an attribute.

A number that an attribute of the same name holds (`groups`, `num_groups`, `normalized_shape`) follows it. Any other
is tried out: one unit is removed and the model is run and compared. Where that fails, integer attributes of the module
with that value are tried in turn; what works for one module of a class is used for all. Where nothing works, the
channels that the number counts are refused.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

from torch import fx, nn

from whyprune.structure.capture import module_path
from whyprune.structure.labels import Labels
from whyprune.structure.operations import name_at

MAX_TRIES = 24


@dataclass(frozen=True, eq=False)
class WidthSite:
    """A number among an operation's arguments that counts channels.

    Attributes:
        node: the operation that takes the number.
        argument: position of the number, or of the list of numbers, among the operation's arguments.
        place: its place in that list.
        labels: the class of every channel that it counts.
        value: the number today; negative where it counts from the end.
    """

    node: fx.Node
    argument: int
    place: int
    labels: Labels
    value: int


@dataclass(frozen=True)
class AttributeRule:
    """An integer of a user's module that counts channels: it follows when some of them go.

    Attributes:
        module: dotted path of the module.
        attribute: the name of an integer, or of a tuple or list of integers.
        place: the place in that tuple; 0 for a lone integer.
        value: the number today.
        labels: the class of every channel that it counts.
    """

    module: str
    attribute: str
    place: int
    value: int
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Candidate:
    """An attribute that holds a site's number."""

    site: WidthSite
    kind: str
    attribute: str
    place: int

    @property
    def key(self) -> tuple[str, str, int]:
        """What modules of one class share."""
        return self.kind, self.attribute, self.place

    def rule(self) -> AttributeRule:
        """The rule that lets the attribute follow the site's channels."""
        labels = tuple(self.site.labels.tolist())
        return AttributeRule(module_path(self.site.node), self.attribute, self.place, self.site.value, labels)


def named(model: nn.Module, site: WidthSite) -> Candidate | None:
    """The attribute named like the operation's argument, if it holds the site's number."""
    wanted = name_at(site.node, site.argument)
    return next((c for c in candidates(model, site, [site]) if (c.attribute, c.place) == (wanted, site.place)), None)


def candidates(model: nn.Module, site: WidthSite, sites: Sequence[WidthSite]) -> list[Candidate]:
    """The attributes of the module that runs a site's operation which hold its number, in order of definition.

    Equal numbers of one operation (`sites` are all of them) share out the attributes in order.
    """
    module = model.get_submodule(module_path(site.node))
    found = []
    for name, value in vars(module).items():
        held = [value] if type(value) is int else value if isinstance(value, tuple | list) else []
        for place, number in enumerate(held):
            if type(number) is int and number == site.value and not name.startswith("_"):
                found.append(Candidate(site, type(module).__qualname__, name, place))
    equal = [s for s in sites if (s.node, s.argument, s.value) == (site.node, site.argument, site.value)]
    return found[equal.index(site) :: len(equal)]


def options(found: Sequence[Candidate]) -> Iterator[frozenset[tuple[str, str, int]]]:
    """Sets of attributes to try, small ones first."""
    keys = list(dict.fromkeys(c.key for c in found))
    sets = chain.from_iterable(combinations(keys, size) for size in (1, 2, len(keys), 3))
    seen: set[frozenset[tuple[str, str, int]]] = set()
    for chosen in map(frozenset, sets):
        if chosen and chosen not in seen and len(seen) < MAX_TRIES:
            seen.add(chosen)
            yield chosen


def first_claims(rules: Iterable[AttributeRule]) -> tuple[AttributeRule, ...]:
    """One rule per attribute: the first that claims it."""
    first: dict[tuple[str, str, int], AttributeRule] = {}
    for rule in rules:
        first.setdefault((rule.module, rule.attribute, rule.place), rule)
    return tuple(first.values())
