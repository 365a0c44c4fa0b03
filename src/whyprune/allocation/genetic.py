"""Genetic search over the shares that groups keep, each plan measured on the network.

Xue et al., AFPruner, Applied Intelligence 2024. [A] a "reverse search genetic algorithm" finds layer-wise ratios. What
it reverses could not be had; ours [I]: ratios in tenths, a population around the scorer's own widths, tournaments,
uniform crossover (0.8), mutation (0.1 per group), survival of the best of parents and children; with `opposition` the
opposite of every child (largest + smallest ratio - ratio; Tizhoosh 2005) is measured as well, and the better one stays.
The genetic operators are those of pymoo.
"""

from typing import Any

import numpy as np

from whyprune.allocation.budget import Budget
from whyprune.allocation.candidates import LEAST, Candidates, Floats
from whyprune.allocation.contract import allocator
from whyprune.allocation.objective import Objective
from whyprune.allocation.reach import check_reachable
from whyprune.allocation.space import Point, Space
from whyprune.errors import MissingDependencyError
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
    check_reachable(space, budget)
    pymoo, (population, generations) = _pymoo(), _effort(objective.plans or PLANS)
    with Progress(progress) as bars:
        bar = bars.add("Measuring plans", 1 + 2 * population * generations)
        candidates = Candidates(space, objective, budget, lambda: bars.advance(bar))
        start = candidates.start()
        best, least = start, candidates.harm(start)
        algorithm = pymoo.algorithm(start, seed, population, generations)
        while algorithm.has_next():
            children = algorithm.ask()
            tenths, harms = _with_opposites(candidates, np.asarray(children.get("X")))
            children.set("X", tenths)
            children.set("F", np.minimum(harms, WORST)[:, None])
            algorithm.tell(infills=children)
            if harms.min() < least:
                best, least = _shares(tenths[int(np.argmin(harms))]), float(harms.min())
    return candidates.chosen(best, least, "individual")


def _effort(plans: int) -> tuple[int, int]:
    """(individuals, generations) that measure so many plans at most, the start and all opposites included."""
    population = min(POPULATION, max(FEWEST_INDIVIDUALS, (plans - 1) // (2 * FEWEST_GENERATIONS)))
    return population, max(FEWEST_GENERATIONS, (plans - 1) // (2 * population))


def _shares(tenths: Floats) -> Floats:
    found: Floats = np.clip(np.asarray(tenths, dtype=np.float64) / TENTHS, LEAST, 1.0)
    return found


def _with_opposites(candidates: Candidates, tenths: Floats) -> tuple[Floats, Floats]:
    """Every individual or its opposite, whichever does less harm, and that harm."""
    chosen, harms = np.array(tenths, dtype=np.float64), np.empty(len(tenths))
    for k, own in enumerate(chosen):
        opposite = own.max() + own.min() - own
        pair = [candidates.harm(_shares(own)), candidates.harm(_shares(opposite))]
        harms[k] = min(pair)
        if pair[1] < pair[0]:
            chosen[k] = opposite
    return chosen, harms


class _Pymoo:
    """The parts of pymoo that the search is made of."""

    def __init__(self, modules: dict[str, Any]) -> None:
        self._modules = modules

    def algorithm(self, start: Floats, seed: int, population: int, generations: int) -> Any:
        """The genetic algorithm, with a first population of tenths around a vector of shares."""
        found = self._modules
        rng = np.random.default_rng(seed)
        middle = np.clip(np.round(start * TENTHS), 1, TENTHS)
        noise = rng.integers(-SPREAD, SPREAD + 1, (population, len(start)))
        noise[0] = 0
        first = np.clip(middle + noise, 1, TENTHS)
        problem = found["Problem"](n_var=len(start), n_obj=1, xl=1, xu=TENTHS)
        rounded = found["RoundingRepair"]()
        algorithm = found["GA"](
            pop_size=population,
            sampling=first,
            crossover=found["UX"](prob=CROSSOVER, repair=rounded),
            mutation=found["PM"](prob=1.0, prob_var=MUTATION, vtype=float, repair=rounded),
            eliminate_duplicates=True,
        )
        algorithm.setup(problem, termination=("n_gen", generations), seed=seed, verbose=False)
        return algorithm


def _pymoo() -> _Pymoo:
    try:
        from pymoo.algorithms.soo.nonconvex.ga import GA
        from pymoo.core.problem import Problem
        from pymoo.operators.crossover.ux import UX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
    except ImportError as error:
        raise MissingDependencyError("this needs pymoo: pip install 'whyprune[search]'") from error
    return _Pymoo({"GA": GA, "Problem": Problem, "UX": UX, "PM": PM, "RoundingRepair": RoundingRepair})
