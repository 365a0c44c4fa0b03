"""Contingency sets: which other units must be out so that one unit decides about an event, on one image.

A unit f is a cause of phi on an image if there is a set W of other units with: do(W := v) keeps phi, and
do(W and f := v) ends it. Its degree of responsibility is 1 / (1 + k), k the size of the smallest such W, and 0 if there
is none [P: Chockler and Halpern, JAIR 2004, after Halpern and Pearl]. Where phi never comes back as more units go,
W and f hold a smallest set that ends phi and needs f, so that 1 / (1 + k) is also what the modified definition
(Halpern, IJCAI 2015) gives a part of a conjunctive cause. Halpern's freezing of other variables at their actual values
is not searched: what stays follows from what went, as in a pruned network.

Deciding this is NP-complete. What is searched [I], with real joint interventions throughout (never sums of effects):
* k = 0, exactly: every unit alone.
* Greedily: units in order of the harm they do alone, those that decide alone left out; W is the first k of them, for
  every k until phi ends. The unit with which it ended is then left out, and W goes on growing. A greedy W is verified
  by the run itself, so k is an upper bound; the responsibility is a lower bound.
* All sets of 1, or of 1 and 2 others (`exact`), where the greedy bound leaves something open.
* Larger sets are then shrunk until no unit of them can be left out.

A search for one image is a generator: it yields sets (rows, units) and is sent the slack of phi under each. So many
images share a batch.
"""

from collections import defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from whyprune.errors import InputError
from whyprune.interventions.worlds import Floats, Masks

Sets = dict[int, tuple[int, ...]]
"""Unit -> the units of its contingency set."""
Search = Generator[Masks, Floats, Sets]


@dataclass(frozen=True)
class Contingency:
    """How contingency sets are searched.

    Attributes:
        largest: most units in a greedy set.
        exact: try all sets of up to this many other units (0, 1 or 2); None for 1 where that takes no more than
            `thorough` runs per image, else 0.
        rounds: how often the greedy set goes on growing after phi has ended.
        thorough: most runs per image and round to try every size for every unit; beyond, only units that decide
            at the greedy set's largest size are tried at smaller ones (exact where phi never comes back).
        additive: instead of any joint intervention, add single effects up, as the code of CexCNN does. To compare.
    """

    largest: int = 16
    exact: int | None = None
    rounds: int = 3
    thorough: int = 2048
    additive: bool = False

    def __post_init__(self) -> None:
        if self.exact not in (None, 0, 1, 2):
            raise InputError(f"contingency sets are searched exactly up to 0, 1 or 2 units, not {self.exact!r}")
        if self.largest < 0 or self.rounds < 0:
            raise InputError(f"largest={self.largest} and rounds={self.rounds} must not be negative")

    def searched(self, units: int) -> int:
        """Up to which size all sets of others are tried, for this many units."""
        if self.additive:
            return 0
        if self.exact is not None:
            return self.exact
        return 1 if units * (units - 1) // 2 <= self.thorough else 0


def search(units: int, slack: float, options: Contingency, wanted: Sequence[int] | None = None) -> Search:
    """The smallest contingency sets found on one image.

    Args:
        units: how many there are.
        slack: of phi without intervention; nothing is a cause of what does not hold.
        options: how to search.
        wanted: the units to search sets for; default: all. Any unit may be in a set.

    Yields:
        Sets (rows, units); to be sent their slacks (rows,).

    Returns:
        The contingency set of every wanted unit that has one.
    """
    if slack <= 0:
        return {}
    judged = frozenset(range(units) if wanted is None else wanted)
    alone = yield np.eye(units, dtype=bool)
    if options.additive:
        return {f: w for f, w in _added(slack - alone, slack).items() if f in judged}
    found: Sets = {int(f): () for f in np.flatnonzero(alone <= 0) if f in judged}
    order = [int(f) for f in np.argsort(alone, kind="stable") if alone[f] > 0]
    yield from _Greedy(units, judged, options, found).search(order)
    yield from _exhaustive(judged, options.searched(units), alone > 0, found)
    yield from _shrunk(units, options.searched(units) + 1, found)
    return found


@dataclass
class _Greedy:
    """Greedy sets on one image; `found` grows."""

    units: int
    judged: frozenset[int]
    options: Contingency
    found: Sets
    start: int = field(default=1)

    def search(self, order: list[int]) -> Generator[Masks, Floats, None]:
        for _ in range(self.options.rounds):
            chain = order[: self.options.largest + 1]
            if len(chain) <= self.start - 1 or len(self.found) == len(self.judged):
                return
            slack = yield _rows(self.units, [chain[:size] for size in range(self.start, len(chain) + 1)])
            ended = np.flatnonzero(slack <= 0)
            end = self.start + int(ended[0]) if len(ended) else None
            yield from self._round(chain, min(len(chain) if end is None else end - 1, self.options.largest))
            if end is None:
                return
            yield from self._without(chain[:end])
            order.remove(chain[end - 1])
            self.start = end

    def _round(self, chain: list[int], last: int) -> Generator[Masks, Floats, None]:
        """Units with the first k of the chain out, k = start..last, all of which keep phi."""
        if last < self.start:
            return
        place = {f: k for k, f in enumerate(chain)}
        open_units = sorted(self.judged - self.found.keys())
        if len(open_units) * (last - self.start + 1) > self.options.thorough:
            rows = [(f, last) for f in open_units if place.get(f, last) >= last]
            slack = yield _rows(self.units, [[*chain[:k], f] for f, k in rows])
            decided = {f for (f, _), left in zip(rows, slack, strict=True) if left <= 0}
            open_units = [f for f in open_units if f in decided or place.get(f, last) < last]
        rows = [(f, k) for k in range(self.start, last + 1) for f in open_units if place.get(f, last) >= k]
        if not rows:
            return
        slack = yield _rows(self.units, [[*chain[:k], f] for f, k in rows])
        for (f, k), left in zip(rows, slack, strict=True):
            if left <= 0:
                self.found.setdefault(f, tuple(chain[:k]))

    def _without(self, chain: list[int]) -> Generator[Masks, Floats, None]:
        """All of the chain together ends phi: units without which it does not are causes, the rest their set."""
        members = [f for f in chain if f in self.judged and f not in self.found]
        sets = [[g for g in chain if g != f] for f in members]
        if not sets:
            return
        slack = yield _rows(self.units, sets)
        for f, others, left in zip(members, sets, slack, strict=True):
            if left > 0:
                self.found[f] = tuple(others)


def _rows(units: int, sets: Sequence[Sequence[int]]) -> Masks:
    masks = np.zeros((len(sets), units), dtype=bool)
    for row, members in enumerate(sets):
        masks[row, list(members)] = True
    return masks


def _exhaustive(
    judged: frozenset[int], sizes: int, alone: NDArray[np.bool_], found: Sets
) -> Generator[Masks, Floats, None]:
    """All sets of one, then of two others, for units whose greedy set is larger, or that have none."""
    units = len(alone)
    keeps: dict[tuple[int, ...], bool] = {(g,): bool(kept) for g, kept in enumerate(alone)}
    for size in range(1, sizes + 1):
        still = {f for f in judged if f not in found or len(found[f]) > size}
        everything = size < sizes  # whether these keep phi is needed to go on
        sets = [s for s in combinations(range(units), size + 1) if everything or _open(s, still, keeps)]
        if not sets:
            return
        slack = yield _rows(units, sets)
        for members, left in zip(sets, slack, strict=True):
            keeps[members] = bool(left > 0)
            for f in _open(members, still, keeps) if left <= 0 else ():
                if f not in found or len(found[f]) > size:
                    found[f] = tuple(g for g in members if g != f)


def _open(members: tuple[int, ...], still: set[int], keeps: dict[tuple[int, ...], bool]) -> list[int]:
    """The members of a set to which the rest of it could be a contingency set smaller than the one known."""
    return [f for f in members if f in still and keeps[tuple(g for g in members if g != f)]]


def _shrunk(units: int, proven: int, found: Sets) -> Generator[Masks, Floats, None]:
    """Leaves out what a set can do without: all such units at once if that holds, else the first of them."""
    open_units = [f for f, w in found.items() if len(w) > proven]
    while open_units:
        tried = [(f, tuple(h for h in found[f] if h != g)) for f in open_units for g in found[f]]
        fit = yield from _fitting(units, tried)
        spare = {f: [g for g in found[f] if tuple(h for h in found[f] if h != g) in fit.get(f, ())] for f in open_units}
        several = [(f, tuple(h for h in found[f] if h not in spare[f])) for f in open_units if len(spare[f]) > 1]
        fit_together = yield from _fitting(units, several)
        for f in open_units:
            found[f] = next(iter([*fit_together.get(f, ()), *fit.get(f, ())]), found[f])
        open_units = [f for f in open_units if spare[f] and len(found[f]) > proven]


def _fitting(
    units: int, tried: Sequence[tuple[int, tuple[int, ...]]]
) -> Generator[Masks, Floats, dict[int, list[tuple[int, ...]]]]:
    """Of pairs of a unit and a set, those in which the set is a contingency set of the unit."""
    if not tried:
        return {}
    slack = yield _rows(units, [w for _, w in tried] + [(*w, f) for f, w in tried])
    fit: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    for (f, others), keeps, ends in zip(tried, slack[: len(tried)] > 0, slack[len(tried) :] <= 0, strict=True):
        if keeps and ends:
            fit[f].append(others)
    return fit


def _added(harm: Floats, slack: float) -> Sets:
    """Contingency sets if effects added up [P: code of CexCNN, Debbi, ECML PKDD 2021].

    A unit whose own harm reaches the slack decides alone; one that does no harm is no cause; to any other, the harm of
    others is added, the greatest that does not reach the slack first, until the sum does.
    """
    found: Sets = {int(f): () for f in np.flatnonzero(harm >= slack)}
    some = [int(f) for f in np.argsort(-harm, kind="stable") if 0 < harm[f] < slack]
    for f in some:
        others = [g for g in some if g != f]
        reached = np.flatnonzero(harm[f] + np.cumsum(harm[others]) >= slack) if others else np.zeros(0, dtype=int)
        if len(reached):
            found[f] = tuple(others[: int(reached[0]) + 1])
    return found
