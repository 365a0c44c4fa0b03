"""`backward`: from the last layer to the first, of each group as many units as its measured harm allows.

Geng & Niu, FSABP, Machine Learning 2022. [A] Filters are deleted layer by layer, from the last to the first, so that
shallow filters do not go too early and the loss of accuracy stays under control. [I] The threshold of a layer is the
largest deletion whose measured harm, given all deletions behind it, stays below delta: the method's fitness, an error
or a joint effect, may rise by no more than delta with one group. Deletions are looked for among `PARTS` equal parts of
a group by halving, as if harm only rose with them. [I] A budget is met by choosing delta: the smallest of a geometric
scale, found by halving, with which the budget is met; as soon as it is, what lies in front stays whole. Where no delta
does, or all plans that may be measured are spent before, groups go as far as they can without a look, the last first.
Layers run in the order in which they first write a group's channels; a residual stream is one group, of its first
layer.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from whyprune.allocation.budget import Budget
from whyprune.allocation.contract import allocator
from whyprune.allocation.objective import Objective
from whyprune.allocation.reach import steered
from whyprune.allocation.space import Point, Space
from whyprune.errors import BudgetError, InputError
from whyprune.progress import Progress

PARTS = 8
"""Of every group's units that are there: a deletion is that many of them."""
LEAST, MOST = 1e-4, 1.0
"""Delta: of an error from a fraction of an image to all of them; of joint effects up to another image's answer."""
MOST_PASSES, FEWEST_PASSES = 8, 3
"""Times that all groups are gone through: each halves the scale of delta, after eight it is known to 4%."""
PLANS, PER_GROUP = 400, 3
"""Plans that are measured at most, and how many a group takes in one pass."""


@allocator(
    "backward",
    summary="from the last layer to the first as many units as keep the measured harm of each group below a delta, the "
    "smallest with which the budget is met",
    needs="evaluator",
    guarantee="no group's measured harm is above delta, but where no delta meets the budget",
    cost=f"about {PER_GROUP} measured plans for each group, {FEWEST_PASSES} to {MOST_PASSES} times, at most {PLANS}",
    paper="FSABP, Geng & Niu, Machine Learning 2022",
    plans=PLANS,
)
def backward(
    space: Space,
    objective: Objective,
    budget: Budget,
    *,
    seed: int = 0,
    progress: bool = False,
) -> Point:
    """The point of the smallest delta that meets the budget.

    Raises:
        InputError: there is nothing to measure with.
        BudgetError: no point along the order of units meets the budget.
    """
    if objective.evaluator is None:
        raise InputError("allocation 'backward' measures plans on the network: give images to measure them on")

    def walk(space: Space) -> Point:
        order = [g.name for g in reversed(space.network.groups_as_run) if len(space.variables[g.name].stops) > 1]
        with Progress(progress) as bars:
            plans = objective.plans or PLANS
            passes = min(MOST_PASSES, max(FEWEST_PASSES, plans // (PER_GROUP * max(len(order), 1))))
            bar = bars.add("Going backward through the groups", passes * len(order))
            ways = Backward(space, objective, budget, order, plans, lambda n: bars.advance(bar, n))
            return smallest_delta(ways, passes)

    return steered(space.bounded(objective.ends), budget, walk)


class _SpentError(Exception):
    """All plans that may be measured are."""


@dataclass
class Backward:
    """Ways from the last group to the first.

    Attributes:
        space: of the plans.
        objective: measures them.
        budget: where a way ends.
        order: names of groups, the last first.
        plans: how many may be measured.
        advance: called with the number of groups that are done, or left out.
        delta: of the last way that met the budget.
        harms: of every deletion on the last way that met the budget: group -> (before, after).
    """

    space: Space
    objective: Objective
    budget: Budget
    order: list[str]
    plans: int = PLANS
    advance: Callable[[int], None] = lambda _: None
    delta: float = math.inf
    harms: dict[str, tuple[float, float]] = field(default_factory=dict)
    _asked: set[tuple[str, ...]] = field(default_factory=set)

    def way(self, delta: float) -> dict[str, int] | None:
        """The first point within the budget, where no group's deletion does more harm than delta; None for none."""
        point, harms = dict(self.space.start), dict[str, tuple[float, float]]()
        if self._is_met(point):
            return point
        before = self._harm(point, delta)
        for done, name in enumerate(self.order):
            if not self._is_met(self._emptied(point, self.order[done:])):
                self.advance(len(self.order) - done)
                return None
            stops = self._stops(point, name)
            found = self._farthest(point, name, stops, before + delta)
            if self._is_met({**point, name: found}):
                found = next(stop for stop in self._between(point, name, found) if self._is_met({**point, name: stop}))
            if found != point[name]:
                point[name] = found
                after = self._harm(point, delta)
                harms[name], before = (before, after), after
            if self._is_met(point):
                self.advance(len(self.order) - done)
                self.delta, self.harms = delta, harms
                return point
            self.advance(1)
        return None

    def _farthest(self, point: Point, name: str, stops: list[int], most: float) -> int:
        """The stop to which a group goes, found by halving: the harm is at most `most` there."""
        low, high = 0, len(stops)
        while high - low > 1:
            middle = (low + high) // 2
            harmless = self._harm({**point, name: stops[middle]}, most) <= most
            low, high = (middle, high) if harmless else (low, middle)
        return stops[low]

    def _harm(self, point: Point, allowed: float) -> float:
        """The measured harm of a point; not measured where any is allowed."""
        if math.isinf(allowed):
            return 0.0
        units = self.objective.units(point)
        if units not in self._asked and len(self._asked) >= self.plans:
            raise _SpentError
        self._asked.add(units)
        return self.objective.measured(point)  # which measures no units twice

    def _stops(self, point: Point, name: str) -> list[int]:
        """Where a group may go from here, in at most `PARTS` steps."""
        every = [point[name], *self._between(point, name, self.space.variables[name].stops[-1])]
        count = min(PARTS, len(every) - 1)
        return [every[math.ceil(k * (len(every) - 1) / count)] for k in range(count + 1)] if count else every

    def _between(self, point: Point, name: str, last: int) -> Iterator[int]:
        """The stops from here to `last` that constraints allow, the nearest first."""
        for stop in self.space.variables[name].stops:
            if point[name] < stop <= last and self.space.is_feasible({**point, name: stop}):
                yield stop

    def _emptied(self, point: Point, names: list[str]) -> dict[str, int]:
        """As little as may be left of these groups; what an axis has to keep is not looked at."""
        return {**point, **{name: self.space.variables[name].stops[-1] for name in names}}

    def _is_met(self, point: Point) -> bool:
        return self.budget.met_by(self.space.cost(point), self.space.network.cost())


def smallest_delta(ways: Backward, passes: int = MOST_PASSES) -> dict[str, int]:
    """The point on the way of the smallest delta that is found by so many halvings of its scale.

    Raises:
        BudgetError: not even without a bound on harm.
    """
    low, high, best = LEAST, MOST, None
    with suppress(_SpentError):
        for _ in range(passes):
            delta = math.sqrt(low * high)
            found = ways.way(delta)
            if found is None:
                low = delta
            else:
                best, high = found, delta
    best = ways.way(math.inf) if best is None else best
    if best is None:
        raise BudgetError(f"going backward does not meet the budget {ways.budget}: allocate with 'global'")
    return best
