"""`halp`: as much importance as fits, a knapsack over bundles of units as large as the steps of the cost.

Shen et al., HALP, NeurIPS 2022. [C] The units of a layer are sorted by importance and bundled by the step size of its
latency; a bundle's cost is what the latency table rises by with it, all other layers as they are; the kept importance
is maximised within the budget, a bundle only after all more important ones. Here a bundle lies between two widths of a
group, and a prefix of bundles is a choice of width, so that precedence is built in and the program is a multiple-choice
knapsack, solved exactly (`multiple_choice`). Any cost will do: latency where a device's table prices it, MACs,
parameters. Steps are those that the price itself shows: a width at which nothing is saved against a larger one is none.

[I] What a width saves depends on the other widths: HALP takes them as they are in each of its rounds. So do we; the
budget is aimed at so that the cost of the whole plan, not the sum of parts, meets it; costs are then taken half way to
the plan that was found, the program is solved again, and the best of a few such plans is taken. What is left over at
the end is given back, bundle by bundle. With several bounds costs are added up as shares of their bounds, in several
mixtures.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from whyprune.allocation.budget import Budget
from whyprune.allocation.contract import allocator
from whyprune.allocation.multiple_choice import Front, front
from whyprune.allocation.objective import Objective
from whyprune.allocation.reach import steered
from whyprune.allocation.space import Point, Space
from whyprune.errors import BudgetError
from whyprune.progress import Progress

Floats = NDArray[np.float64]
AGAIN = 6
"""Times that the program is solved at most; mostly the third plan is the last that is better."""
BUNDLES = 48
"""Of a group with more steps, as many; single units are given back between them."""
AROUND = 32
"""Points of the front above the first that fits, which may fit as well: costs of whole plans do not quite add up."""
SMALLEST = 1e-12


@allocator(
    "halp",
    summary="keeps as much importance as fits: an exact knapsack over bundles of units as large as the cost's steps",
    guarantee="the best of all widths where the cost adds up over groups and there is one bound; whole steps of a "
    "staircase",
    paper="HALP, Shen et al., NeurIPS 2022",
)
def halp(
    space: Space,
    objective: Objective,
    budget: Budget,
    *,
    seed: int = 0,
    progress: bool = False,
) -> Point:
    """The point that keeps most importance: least summed heights of what goes.

    Raises:
        BudgetError: no point along the objective's curves meets the budget.
    """

    def walk(space: Space) -> Point:
        with Progress(progress) as bars:
            bar = bars.add("Packing bundles", AGAIN)
            packing = _Packing(space, objective, budget)
            for _ in range(AGAIN):
                if not packing.again():
                    break
                bars.advance(bar)
        return packing.finished()

    return steered(space.bounded(objective.ends), budget, walk)


class _Packing:
    """Plans at costs taken on the way to the last of them; the best so far is kept.

    Attributes:
        at: the point at which costs are taken: of each group, all others as they are there.
        best: (lost importance, point).
    """

    def __init__(self, space: Space, objective: Objective, budget: Budget) -> None:
        self.space, self.objective, self.budget = space, objective, budget
        self.limits = budget.limits(space.network.cost())
        self.names = [name for name in space.bounds.groups if name in objective.curves]
        self.at: dict[str, int] = dict(space.start)
        self.best: tuple[float, dict[str, int]] | None = None
        self._last: dict[str, int] | None = None

    def again(self) -> bool:
        """Packs once more; whether that gave another plan than the time before."""
        found = min(self._plans(), key=lambda pair: pair[0], default=None)
        if found is None or found[1] == self._last:
            return False
        self._last = found[1]
        self.best = found if self.best is None else min(self.best, found, key=lambda pair: pair[0])
        self.at = {name: (stop + self.at[name]) // 2 for name, stop in found[1].items()}
        return True

    def finished(self) -> Point:
        """The best plan, with what is left over given back.

        Raises:
            BudgetError: none met the budget.
        """
        if self.best is None:
            raise BudgetError(f"no bundles of units within the budget {self.budget} were found")
        point = self.best[1]
        while back := min(self._backs(point), key=lambda pair: pair[0], default=None):
            point = back[1]
        return point

    def _plans(self) -> Iterator[tuple[float, dict[str, int]]]:
        """(lost importance, point) of the best that fits, for every mixture of bounds."""
        steps = {name: self._steps(name) for name in self.names}
        for mixture in _mixtures(list(self.limits)):
            classes = []
            for stops, costs in steps.values():
                mixed = sum((mixture[kind] * costs[kind] for kind in mixture), np.zeros(len(stops)))
                classes.append((mixed, -np.array([height for _, height in stops])))
            yield from self._fitting(front(classes), list(steps.values()))

    def _steps(self, name: str) -> tuple[list[tuple[int, float]], Mapping[str, Floats]]:
        """The stops of a group with the importance lost, and their costs by kind as shares of the bounds.

        A stop at which no bound's cost is lower than at all stops before it ends no bundle.
        """
        stops, lowest = [], dict.fromkeys(self.limits, np.inf)
        costs: dict[str, list[float]] = {kind: [] for kind in self.limits}
        for stop in self._candidates(name):
            own = {k: self.space.amount(k, {**self.at, name: stop}) / limit for k, limit in self.limits.items()}
            if any(own[kind] < lowest[kind] - SMALLEST for kind in own):
                stops.append((stop, self.objective.height(name, stop)))
                for kind, value in own.items():
                    costs[kind].append(value)
                    lowest[kind] = min(lowest[kind], value)
        return stops, {kind: np.array(values) - values[0] for kind, values in costs.items()}

    def _candidates(self, name: str) -> list[int]:
        stops = self.space.variables[name].stops
        if self.space.bounds.multiples(name) is not None or len(stops) <= BUNDLES:
            return list(stops)
        places = np.linspace(0, len(stops) - 1, BUNDLES).round().astype(int)
        return sorted({*(stops[k] for k in places), self.at[name]})

    def _fitting(
        self, found: Front, steps: Sequence[tuple[list[tuple[int, float]], Mapping[str, Floats]]]
    ) -> Iterator[tuple[float, dict[str, int]]]:
        """The points of most value on a front whose whole cost is within the budget."""

        def at(place: int) -> dict[str, int] | None:
            stops = [own[choice][0] for (own, _), choice in zip(steps, found.choices(place), strict=True)]
            return self._allowed({**self.space.start, **dict(zip(self.names, stops, strict=True))})

        low, high = -1, len(found.costs)  # places that fit, and that do not, as if costs rose all the way
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if at(middle) is not None else (low, middle)
        for place in range(min(low + AROUND, len(found.costs) - 1), max(low, 0) - 1, -1):
            if (point := at(place)) is not None:
                yield self._lost(point), point
                return

    def _allowed(self, point: Mapping[str, int]) -> dict[str, int] | None:
        """The point at multiples, if it keeps to constraints and budget."""
        rounded = self.space.rounded(point)
        whole = self.space.network.cost()
        fits = self.space.is_feasible(rounded) and self.budget.met_by(self.space.cost(rounded), whole)
        return rounded if fits else None

    def _lost(self, point: Mapping[str, int]) -> float:
        return sum(self.objective.height(name, point[name]) for name in self.names)

    def _backs(self, point: Mapping[str, int]) -> Iterator[tuple[float, dict[str, int]]]:
        """(minus the importance won, point) where one group goes back to an earlier stop and the budget still holds."""
        for name in self.names:
            here = self.objective.height(name, point[name])
            for stop in reversed([n for n in self.space.variables[name].stops if n < point[name]]):
                won = here - self.objective.height(name, stop)
                if won > SMALLEST and (back := self._allowed({**point, name: stop})) is not None:
                    yield -won, back
                    break


def _mixtures(kinds: Sequence[str]) -> list[dict[str, float]]:
    """Weights of several bounds: each alone, and all alike."""
    alone = [dict.fromkeys(kinds, 0.05) | {kind: 1.0} for kind in kinds]
    return alone if len(kinds) == 1 else [*alone, dict.fromkeys(kinds, 1.0)]
