"""Random ratios of removal on the budget's edge, each plan measured: EagleEye's candidates (Li et al., ECCV 2020).

[C] A ratio per layer is drawn from [0, 0.7]; vectors whose cost is not within 0.5% of the target are thrown away, and
the search goes on without end (about 1,000 candidates [I]). At a budget far from the mean of such vectors nearly all
are thrown away. Ours [I]: a vector u of uniform numbers is steered, ratio = min(0.7, s u), s growing until the budget
holds. It is thrown away where that ends more than 0.5% below the edge; of DRAWS such vectors the nearest one is taken,
since few units cannot hit every edge. Where 0.7 everywhere does not meet the budget, it grows in tenths to 1.
"""

from collections.abc import Iterator

import numpy as np

from whyprune.allocation.budget import Budget
from whyprune.allocation.candidates import Floats, best_of
from whyprune.allocation.contract import allocator
from whyprune.allocation.objective import Objective
from whyprune.allocation.reach import check_reachable
from whyprune.allocation.space import Point, Space

PLANS, DRAWS = 256, 6
LARGEST = (0.7, 0.8, 0.9, 1.0)
TOLERANCE = 0.005
FACTORS = np.concatenate([[0.0], np.geomspace(0.05, 1000, 512)])


@allocator(
    "random-ratios",
    summary="random ratios up to 0.7 on the budget's edge, each plan measured (EagleEye)",
    needs="evaluator",
    guarantee="the best of the plans it measured, on the images it measured them on",
    paper="Li et al., ECCV 2020",
    plans=PLANS,
)
def random_ratios(
    space: Space, objective: Objective, budget: Budget, *, seed: int = 0, progress: bool = False
) -> Point:
    """The best of so many random points on the budget's edge.

    Raises:
        BudgetError: no vector of ratios meets the budget.
        InputError: no network that was measured gave finite numbers.
    """
    check_reachable(space, budget)
    rng, plans = np.random.default_rng(seed), objective.plans or PLANS
    ratios = _Ratios(space, budget)
    return best_of((ratios.drawn(rng) for _ in range(plans)), plans, objective, budget, progress=progress)


class _Ratios:
    """Vectors of ratios of one space, and the points they lead to."""

    def __init__(self, space: Space, budget: Budget) -> None:
        self._space, self._limits = space, budget.limits(space.network.cost())
        self._sizes = {name: len(group.units) for name, group in space.bounds.groups.items()}
        everywhere = np.ones(len(self._sizes))
        self._largest = next((top for top in LARGEST if self._spent(self._at(top * everywhere)) <= 1), LARGEST[-1])

    def drawn(self, rng: np.random.Generator) -> Point | None:
        """A random point on the edge of the budget, or the nearest of several; None where none meets it."""
        best, nearest = None, -np.inf
        for point in self._steered(rng):
            if (spent := self._spent(point)) > nearest:
                best, nearest = point, spent
            if nearest >= 1 - TOLERANCE:
                break
        return best

    def _steered(self, rng: np.random.Generator) -> Iterator[Point]:
        """Points that meet the budget, from vectors of uniform numbers."""
        for _ in range(DRAWS):
            pull = rng.random(len(self._sizes))
            low, high = 0, len(FACTORS) - 1
            while low < high:  # the smallest factor that meets the budget
                middle = (low + high) // 2
                met = self._spent(self._at(np.minimum(self._largest, FACTORS[middle] * pull))) <= 1
                low, high = (low, middle) if met else (middle + 1, high)
            point = self._at(np.minimum(self._largest, FACTORS[low] * pull))
            if self._spent(point) <= 1:
                yield point

    def _at(self, ratios: Floats) -> dict[str, int]:
        """The point at which these shares of all units are gone, as far as the space allows."""
        gone = {name: round(size * ratio) for (name, size), ratio in zip(self._sizes.items(), ratios, strict=True)}
        bounds, start = self._space.bounds, self._space.start
        return bounds.rounded(bounds.filled({name: max(0, count - start[name]) for name, count in gone.items()}))

    def _spent(self, point: Point) -> float:
        """How much of the budget a point spends, of the kind that it spends most of; 1 is the edge."""
        return max(self._space.amount(kind, point) / limit for kind, limit in self._limits.items())
