"""`Constraints`: what pruning must leave alone, in channels and shares of the dense network."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from numbers import Integral, Real
from typing import Any, TypeVar

from whyprune.errors import InputError
from whyprune.structure.network import Network
from whyprune.structure.units import Group

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Limits:
    """What holds for one group: its width is a multiple, at least `width`; at most `share` of its units go."""

    multiple: int = 1
    width: int = 1
    share: float = 1.0

    def most(self, units: int) -> int:
        """How many of so many units may go."""
        return math.floor(self.share * units + 1e-9)  # 0.29 * 100 is a little less than 29


@dataclass(frozen=True)
class Constraints:
    """Bounds on the pruned widths; all hold at once, whatever the method and the allocation.

    The width of a group is the number of channels that stay on its first axis, channels of other groups and kept ones
    included. Numbers hold for every group, or are a mapping from a group, or a module that writes groups, to its
    number. Where several keys fit one group, and where several groups lie on one axis, all of them hold.

    Attributes:
        ignore: groups, or modules that write them, whose channels are all kept.
        round_to: widths are multiples of this many channels; a group that cannot reach a multiple is kept whole.
        min_width: channels of the dense width that stay at least; a narrower group is kept whole.
        max_share: of a group's units, at most this share goes, 0 to 1.
        together: sets of groups that lose the same units, index by index, and so keep the same width.
        stops: per group, widths are multiples of this too: what a device's latency table knows. Not asked for by a
            user, and not among what `as_dict` says.

    Raises:
        InputError: a value of the wrong kind or out of range.
    """

    ignore: tuple[str, ...] = ()
    round_to: int | Mapping[str, int] | None = None
    min_width: int | Mapping[str, int] | None = None
    max_share: float | Mapping[str, float] | None = None
    together: tuple[tuple[str, ...], ...] = ()
    stops: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        set_once = partial(object.__setattr__, self)
        set_once("ignore", _names("ignore", self.ignore))
        for name in ("round_to", "min_width"):
            set_once(name, _numbers(name, getattr(self, name), _count, "a whole number of channels, 1 or more"))
        set_once("max_share", _numbers("max_share", self.max_share, _share, "a share between 0 and 1"))
        set_once("together", _ties(self.together))

    def prepared(self, network: Network) -> Network:
        """The network without the ignored groups and with groups tied that go together.

        Raises:
            InputError: a name fits no group.
        """
        network = network.ignoring(self.ignore)
        return network.together(self.together) if self.together else network

    def confirmed(self, network: Network) -> Network:
        """A network, prepared or not, without the ignored groups; ties have to be in it, as effects are of tied units.

        Raises:
            InputError: groups that go together are still apart, or a name fits no group.
        """
        for names in self.together:
            if len({group.name for name in names for group in _fitting("together", name, network)}) > 1:
                raise InputError(
                    f"together: {', '.join(names)} are still apart: tie them with network.together(...) before "
                    "effects are estimated, so that these are of the tied units"
                )
        modules = dict(network.model.named_modules())  # a module without a group may be one that is ignored already
        return network.ignoring(
            name
            for name in self.ignore
            if name.partition("/")[0] not in modules or any(g.written_by(name) for g in network.groups)
        )

    def limits(self, network: Network) -> dict[str, Limits]:
        """Group name -> what holds for it.

        Raises:
            InputError: a key fits no group.
        """
        multiples, widths, shares = (
            _per_group(name, getattr(self, name), network) for name in ("round_to", "min_width", "max_share")
        )
        return {
            g.name: Limits(
                math.lcm(*multiples[g.name], self.stops.get(g.name, 1)),
                max(widths[g.name], default=1),
                min(shares[g.name], default=1.0),
            )
            for g in network.groups
        }

    def as_dict(self) -> dict[str, Any]:
        """The constraints that are given, as plain values."""
        plain = {"together": [list(names) for names in self.together], "ignore": list(self.ignore)}
        values = {f.name: plain.get(f.name, getattr(self, f.name)) for f in fields(self) if f.name != "stops"}
        return {name: value for name, value in values.items() if value not in (None, [])}

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.as_dict().items())


def _names(field: str, value: Any) -> tuple[str, ...]:
    names = None if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)
    if names is None or not all(isinstance(name, str) for name in names):
        raise InputError(f"{field}={value!r}: give a tuple of names of groups or modules")
    return names


def _ties(value: Any) -> tuple[tuple[str, ...], ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InputError(f"together={value!r}: give tuples of names, such as (('a', 'b'),)")
    ties = tuple(_names("together", names) for names in value)
    if alone := [names for names in ties if len(set(names)) < 2]:
        raise InputError(f"together: {alone[0]!r} ties nothing: give at least two different names")
    return ties


def _numbers(field: str, value: Any, read: Callable[[Any], float | None], what: str) -> Any:
    """A number or a mapping to numbers, as plain ones."""
    if value is None:
        return None
    numbers = {}
    for key, given in (value if isinstance(value, Mapping) else {"": value}).items():
        number = None if isinstance(given, bool) or not isinstance(key, str) else read(given)
        if number is None:
            place = f"{field}[{key!r}]" if isinstance(value, Mapping) else field
            raise InputError(f"{place}={given!r}: give {what}, or a mapping of names to such")
        numbers[key] = number
    return numbers if isinstance(value, Mapping) else numbers[""]


def _count(value: Any) -> int | None:
    return int(value) if isinstance(value, Integral) and int(value) >= 1 else None


def _share(value: Any) -> float | None:
    return float(value) if isinstance(value, Real) and 0 <= float(value) <= 1 else None


def _per_group(field: str, value: Number | Mapping[str, Number] | None, network: Network) -> dict[str, list[Number]]:
    """Group name -> every number that holds for it."""
    found: dict[str, list[Number]] = {group.name: [] for group in network.groups}
    if value is not None and not isinstance(value, Mapping):
        return {name: [value] for name in found}
    for key, number in (value or {}).items():
        for group in _fitting(field, key, network):
            found[group.name].append(number)
    return found


def _fitting(field: str, name: str, network: Network) -> list[Group]:
    groups = [group for group in network.groups if group.name == name]
    groups = groups or [group for group in network.groups if group.written_by(name)]
    if not groups:
        known = ", ".join(group.name for group in network.groups)
        raise InputError(
            f"{field} names {name!r}, which is no group and no module that writes one: the groups are {known}"
        )
    return groups
