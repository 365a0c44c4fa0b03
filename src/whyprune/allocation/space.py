"""`Space`: the decision variables of a plan, what each point of them costs, which are feasible, and what goes there.

A width variable is a group: its stop is how many of its units are gone. A block variable is a residual block with two
stops: 0, and 1 where it is gone as a whole; the groups inside it then decide nothing and cost nothing. Nothing outside
this file knows what a block is.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from whyprune.allocation.bounds import Counts, WidthBounds
from whyprune.allocation.constraints import Constraints
from whyprune.errors import InputError
from whyprune.structure.cost import Cost
from whyprune.structure.network import Network
from whyprune.structure.plan import Plan, make_plan
from whyprune.structure.state import State

Point = Mapping[str, int]
"""Variable -> stop; a variable that is not named stays where it is."""
WIDTH, BLOCK = "width", "block"
KINDS = (WIDTH, BLOCK)


@dataclass(frozen=True)
class Variable:
    """One decision.

    Attributes:
        name: of the group or the residual block.
        kind: `width` or `block`.
        stops: the values it may take, ascending; the first is where it is now.
    """

    name: str
    kind: str
    stops: tuple[int, ...]


class Space:
    """All plans from a state on, within the constraints.

    Attributes:
        state: where plans start; its network may be priced.
        constraints: what must stay, relative to the dense network.
        kinds: the kinds of variables there are.
        bounds: how far widths may go.
        inside: block variable -> the groups inside.
        start: the point at which nothing further is removed.
    """

    def __init__(
        self,
        start: Network | State,
        constraints: Constraints | None = None,
        *,
        kinds: Sequence[str] = (WIDTH,),
        most: Counts | None = None,
    ) -> None:
        """The space from a network or state on; of each group at most `most` units go.

        Raises:
            InputError: an unknown kind of variable, or constraints that name an unknown group.
        """
        if unknown := [kind for kind in kinds if kind not in KINDS]:
            raise InputError(f"no decision variables of kind {unknown[0]!r}: choose from {', '.join(KINDS)}")
        self.state = State.of(start)
        self.constraints = constraints or Constraints()
        self.kinds = tuple(kinds)
        before = Counter(unit.group for unit in self.state.removed)
        self._limited = most
        self.bounds = WidthBounds(self.network, before, self.constraints, most)
        self.inside = self._whole_blocks() if BLOCK in kinds else {}
        self.start: dict[str, int] = {**self.bounds.before, **dict.fromkeys(self.inside, 0)}

    @property
    def network(self) -> Network:
        """The traced original."""
        return self.state.network

    @cached_property
    def variables(self) -> dict[str, Variable]:
        """All decisions, by name."""
        found = {}
        for name in self.bounds.groups:
            multiples = self.bounds.multiples(name)
            stops = range(self.start[name], self.bounds.most(name) + 1) if multiples is None else multiples
            found[name] = Variable(name, WIDTH, tuple(sorted({self.start[name], *stops})))
        return found | {name: Variable(name, BLOCK, (0, 1)) for name in self.inside}

    def bounded(self, most: Counts) -> "Space":
        """The same space, in which of each group named at most so many units go."""
        merged = dict(self._limited or {})
        merged |= {name: min(count, merged.get(name, count)) for name, count in most.items()}
        return Space(self.state, self.constraints, kinds=self.kinds, most=merged)

    def counts(self, point: Point) -> dict[str, int]:
        """Group -> units gone at a point; all of those inside a block that is gone. Widths as they are, not rounded."""
        found = {name: point.get(name, self.start[name]) for name in self.bounds.groups}
        for block in self.gone_blocks(point):
            found |= {name: len(self.bounds.groups[name].units) for name in self.inside[block]}
        return found

    def gone_blocks(self, point: Point) -> list[str]:
        """The blocks that are gone at a point."""
        return [name for name in self.inside if point.get(name, 0)]

    def idle(self, point: Point) -> frozenset[str]:
        """The groups that decide nothing at a point: they lie in a block that is gone."""
        return frozenset(name for block in self.gone_blocks(point) for name in self.inside[block])

    def rounded(self, point: Point) -> dict[str, int]:
        """The point at or little below this one at which every width is a multiple or whole."""
        idle = self.idle(point)
        widths = self.bounds.rounded(self.counts(point))
        return {name: count for name, count in widths.items() if name not in idle} | {
            name: point.get(name, 0) for name in self.inside
        }

    def is_feasible(self, point: Point) -> bool:
        """Whether a point keeps to the constraints and leaves every axis a channel."""
        if not all(v.stops[0] <= point.get(v.name, v.stops[0]) <= v.stops[-1] for v in self):
            return False
        counts, idle = self.counts(point), self.idle(point)
        try:
            return self.bounds.wide_enough(counts, idle) and self.counts(self.rounded(point)) == counts
        except InputError:  # what was gone before breaks the multiples
            return False

    def cost(self, point: Point) -> Cost:
        """What the network costs at a point."""
        return self.network.cost.of_sizes(self.bounds.lost(self.counts(point)))

    def amount(self, kind: str, point: Point) -> float:
        """One kind of cost at a point."""
        return self.network.cost.amount(kind, self.bounds.lost(self.counts(point)))

    def pressure(self, kind: str, point: Point, limit: float) -> float:
        """As `amount`, but where a cost is the largest of many, all that is above the limit counts."""
        return self.network.cost.pressure(kind, self.bounds.lost(self.counts(point)), limit)

    def units(self, point: Point, orders: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        """The names of all units that are gone at a point, those included that were gone before.

        Args:
            point: rounded.
            orders: group -> its units that are still there, in the order in which they go.
        """
        names = [unit.name for unit in self.state.removed]
        for name, count in self.counts(point).items():
            group, before = self.bounds.groups[name], self.start[name]
            if count == len(group.units):
                names += [u.name for u in group.units]
            elif count > before:
                names += orders[name][: count - before]
        return tuple(dict.fromkeys(names))

    def plan(self, point: Point, orders: Mapping[str, Sequence[str]], **about: Any) -> Plan:
        """The plan of a point; `about` fills method, budget and predicted."""
        return make_plan(self.network, self.units(point, orders), **about)

    def _whole_blocks(self) -> dict[str, tuple[str, ...]]:
        """The residual blocks that may go as a whole: they are there, and nothing of them has to stay."""
        limits = self.constraints.limits(self.network)
        bound = {name for name, limit in limits.items() if limit.width > 1 or limit.share < 1}
        gone = {name for name, count in self.bounds.before.items() if count == len(self.bounds.groups[name].units)}
        return {b.name: b.groups for b in self.network.blocks if not (bound | gone).intersection(b.groups)}

    def __iter__(self) -> Iterator[Variable]:
        """The variables."""
        return iter(self.variables.values())

    def __repr__(self) -> str:
        kinds = Counter(variable.kind for variable in self)
        return f"Space({', '.join(f'{count} of kind {kind}' for kind, count in kinds.items())})"
