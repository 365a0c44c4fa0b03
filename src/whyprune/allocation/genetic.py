"""Genetic search over the shares that groups keep, each plan measured on the network.

Xue et al., AFPruner, Applied Intelligence 2024. [A] a "reverse search genetic algorithm" finds layer-wise ratios. What
it reverses could not be had; ours [I]: ratios in tenths, a population around the scorer's own widths, tournaments,
uniform crossover (0.8), mutation (0.1 per group), survival of the best of parents and children; with `opposition` the
opposite of every child (largest + smallest ratio - ratio; Tizhoosh 2005) is measured as well, and the better one stays.
The genetic operators are those of pymoo.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from whyprune.allocation.budget import Budget
from whyprune.allocation.candidates import LEAST, Candidates, Floats
from whyprune.allocation.contract import allocator
from whyprune.allocation.objective import Objective
from whyprune.allocation.reach import check_reachable
from whyprune.allocation.space import Point, Space
from whyprune.named import check_installed
from whyprune.progress import Progress

POPULATION, GENERATIONS = 16, 6
PLANS = 1 + 2 * POPULATION * GENERATIONS
"""The start, and every individual with its opposite: by joint effects, two thirds of an hour on a ResNet-56."""
FEWEST_INDIVIDUALS, FEWEST_GENERATIONS = 2, 3
TENTHS, CROSSOVER, MUTATION, SPREAD = 10, 0.8, 0.1, 1
WORST = 1e300
"""Stands for an infinite harm, which the survival of pymoo cannot sort."""


@allocator(
    "genetic",
    summary="a genetic search over ratios in tenths with opposites, each plan measured (AFPruner)",
    needs="evaluator",
    guarantee="no worse than where it starts, on the images it measured plans on",
    cost="needs pymoo (extra `search`)",
    paper="Xue et al., Applied Intelligence 2024; Tizhoosh 2005",
    plans=PLANS,
    fewest_plans=1 + 2 * FEWEST_INDIVIDUALS * FEWEST_GENERATIONS,
    libraries=("pymoo",),
    extra="search",
)
def genetic(space: Space, objective: Objective, budget: Budget, *, seed: int = 0, progress: bool = False) -> Point:
    """The best point of all generations, or the start where none is better.

    Raises:
        MissingDependencyError: pymoo is not installed.
        BudgetError: no individual met the budget.
        InputError: no network that was measured gave finite numbers.
    """
    return evolved(space, objective, budget, seed=seed, progress=progress)


@dataclass(frozen=True)
class Guide:
    """What a genetic search knows beforehand, in place of opposites and blind mutation.

    Attributes:
        first: (candidates, individuals, generator) -> shares (individuals, groups) of the first population.
        mutated: (shares (individuals, groups), generator) -> the shares after mutation.
        parts: shares are whole numbers of this many parts.
    """

    first: Callable[[Candidates, int, np.random.Generator], Floats]
    mutated: Callable[[Floats, np.random.Generator], Floats]
    parts: int


def evolved(
    space: Space,
    objective: Objective,
    budget: Budget,
    *,
    seed: int,
    progress: bool,
    guided: Callable[[Candidates], Guide] | None = None,
) -> Point:
    """The best point of all generations, or the start where none is better.

    Args:
        space: of the points.
        objective: measures them.
        budget: that all of them meet.
        seed: of everything drawn.
        progress: show a progress bar.
        guided: what the search knows beforehand; None for ratios in tenths with opposites.

    Raises:
        MissingDependencyError: pymoo is not installed.
        BudgetError: no individual met the budget.
        InputError: no network that was measured gave finite numbers.
    """
    check_reachable(space, budget)
    pymoo, each = _pymoo(), 2 if guided is None else 1
    population, generations = _effort(objective.plans or PLANS, each)
    with Progress(progress) as bars:
        bar = bars.add("Measuring plans", 1 + each * population * generations)
        candidates = Candidates(space, objective, budget, lambda: bars.advance(bar))
        start = candidates.start()
        best, least = start, candidates.harm(start)
        guide = None if guided is None else guided(candidates)
        parts = TENTHS if guide is None else guide.parts
        algorithm = pymoo.algorithm(candidates, start, seed, population, generations, guide)
        while algorithm.has_next():
            children = algorithm.ask()
            numbers = np.asarray(children.get("X"), dtype=np.float64)
            harms = np.array([candidates.harm(_shares(own, parts)) for own in numbers])
            if guide is None:
                numbers, harms = _or_opposites(candidates, numbers, harms)
            children.set("X", numbers)
            children.set("F", np.minimum(harms, WORST)[:, None])
            algorithm.tell(infills=children)
            if harms.min() < least:
                best, least = _shares(numbers[int(np.argmin(harms))], parts), float(harms.min())
    return candidates.chosen(best, least, "individual")


def _effort(plans: int, each: int) -> tuple[int, int]:
    """(individuals, generations) that measure so many plans at most, the start and `each` per individual included."""
    population = min(POPULATION, max(FEWEST_INDIVIDUALS, (plans - 1) // (each * FEWEST_GENERATIONS)))
    return population, max(FEWEST_GENERATIONS, (plans - 1) // (each * population))


def _shares(numbers: Floats, parts: int = TENTHS) -> Floats:
    found: Floats = np.clip(np.asarray(numbers, dtype=np.float64) / parts, LEAST, 1.0)
    return found


def _or_opposites(candidates: Candidates, tenths: Floats, harms: Floats) -> tuple[Floats, Floats]:
    """Every individual or its opposite, whichever does less harm, and that harm."""
    chosen, least = np.array(tenths, dtype=np.float64), harms.copy()
    for k, own in enumerate(tenths):
        opposite = own.max() + own.min() - own
        harm = candidates.harm(_shares(opposite))
        if harm < least[k]:
            chosen[k], least[k] = opposite, harm
    return chosen, least


class _Pymoo:
    """The parts of pymoo that the search is made of."""

    def __init__(self, modules: dict[str, Any]) -> None:
        self._modules = modules

    def algorithm(
        self, candidates: Candidates, start: Floats, seed: int, population: int, generations: int, guide: Guide | None
    ) -> Any:
        """The genetic algorithm, with a first population around a vector of shares, or as a guide has it."""
        found, rng = self._modules, np.random.default_rng(seed)
        parts = TENTHS if guide is None else guide.parts
        if guide is None:
            noise = rng.integers(-SPREAD, SPREAD + 1, (population, len(start)))
            noise[0] = 0
            first = np.clip(np.round(start * TENTHS), 1, TENTHS) + noise
        else:
            first = np.round(guide.first(candidates, population, rng) * parts)
        problem = found["Problem"](n_var=len(start), n_obj=1, xl=1, xu=parts)
        rounded = found["RoundingRepair"]()
        algorithm = found["GA"](
            pop_size=population,
            sampling=np.clip(first, 1, parts),
            crossover=found["UX"](prob=CROSSOVER, repair=rounded),
            mutation=found["PM"](prob=1.0, prob_var=MUTATION, vtype=float, repair=rounded)
            if guide is None
            else self._guided(guide, rng),
            eliminate_duplicates=True,
        )
        algorithm.setup(problem, termination=("n_gen", generations), seed=seed, verbose=False)
        return algorithm

    def _guided(self, guide: Guide, rng: np.random.Generator) -> Any:
        """A mutation that a guide makes."""
        mutation: Any = self._modules["Mutation"]

        class Guided(mutation):  # type: ignore[misc]
            def _do(self, _: Any, numbers: Floats, **__: Any) -> Floats:
                moved = guide.mutated(_shares(numbers, guide.parts), rng) * guide.parts
                return np.clip(np.round(moved), 1, guide.parts)

        return Guided(prob=1.0)


def _pymoo() -> _Pymoo:
    check_installed("this", ("pymoo",), "search")
    from pymoo.algorithms.soo.nonconvex.ga import GA
    from pymoo.core.mutation import Mutation
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.ux import UX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair

    return _Pymoo(
        {"GA": GA, "Mutation": Mutation, "Problem": Problem, "UX": UX, "PM": PM, "RoundingRepair": RoundingRepair}
    )
