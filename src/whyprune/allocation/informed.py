"""Searches that know the curves: they start at the curves' plan, and move where curves say that a unit is cheap [I].

The particle swarm and the genetic search of `particle_swarm` and `genetic`, with as many plans or half as many:

* the swarm's velocity has one more attraction: groups whose next unit is cheap in effect per saved cost are pulled
  narrower, groups in which it is dear wider (`slopes`); all else is ACP's rule;
* the genetic search starts with the plans that are best if every group's curve is off by a factor of its own
  (log-normal, by about 2.7), in fortieths; mutation moves a group by a few fortieths, where its slope is clear three
  times in four towards what that says. Opposites are left out: those of plans near the curves' are known to be bad.

Both measure plans as they do without it, so curves that err cost plans, and never the guarantee. They work along
scores of any scorer as well, whose sums stand for curves then.
"""

from dataclasses import dataclass, replace

import numpy as np

from whyprune.allocation.budget import Budget
from whyprune.allocation.candidates import LEAST, Candidates, Floats
from whyprune.allocation.contract import allocator
from whyprune.allocation.genetic import (
    FEWEST_GENERATIONS,
    FEWEST_INDIVIDUALS,
    GENERATIONS,
    POPULATION,
    Guide,
    evolved,
)
from whyprune.allocation.greedy import greedy
from whyprune.allocation.objective import Objective
from whyprune.allocation.particle_swarm import FEWEST_CYCLES, FEWEST_PARTICLES, PLANS, swarmed
from whyprune.allocation.slopes import Slopes
from whyprune.allocation.space import Point, Space
from whyprune.errors import BudgetError

PARTS = 40
"""Shares are in fortieths: tenths would round away what curves tell apart."""
ERROR = 1.0
"""The standard deviation of the logarithm of what a group's curve is off by in a plan of the first population."""
MUTATION, STEP, TRUST = 0.1, 4, 0.5
"""How many groups a mutation moves, by how many parts on average, how much more often along a slope than against it."""
START_GUARANTEE = "no worse than the plan along the curves, on the images it measured plans on"


@allocator(
    "informed-swarm",
    summary="the particle swarm with a velocity that curves inform: units that are cheap per saved cost go first",
    needs="evaluator",
    guarantee=START_GUARANTEE,
    paper="after Chang et al., Applied Intelligence 2022",
    plans=PLANS,
    fewest_plans=FEWEST_PARTICLES * (FEWEST_CYCLES + 1),
)
def informed_swarm(
    space: Space, objective: Objective, budget: Budget, *, seed: int = 0, progress: bool = False
) -> Point:
    """The best point that any particle visited.

    Raises:
        BudgetError: no particle met the budget.
        InputError: no network that was measured gave finite numbers.
    """
    pulls = Slopes(space, objective, budget).pulls
    return swarmed(space, objective, budget, seed=seed, progress=progress, pulls=pulls)


@allocator(
    "informed-genetic",
    summary="a genetic search whose first population and mutations come from curves, each plan measured",
    needs="evaluator",
    guarantee=START_GUARANTEE,
    cost="needs pymoo (extra `search`)",
    paper="after Xue et al., Applied Intelligence 2024",
    plans=1 + POPULATION * GENERATIONS,
    fewest_plans=1 + FEWEST_INDIVIDUALS * FEWEST_GENERATIONS,
    libraries=("pymoo",),
    extra="search",
)
def informed_genetic(
    space: Space, objective: Objective, budget: Budget, *, seed: int = 0, progress: bool = False
) -> Point:
    """The best point of all generations, or the start where none is better.

    Raises:
        MissingDependencyError: pymoo is not installed.
        BudgetError: no individual met the budget.
        InputError: no network that was measured gave finite numbers.
    """
    asked = replace(objective, plans=objective.plans or 1 + POPULATION * GENERATIONS)

    def guided(candidates: Candidates) -> Guide:
        informed = _AlongCurves(Slopes(space, asked, budget), candidates.sizes)
        return Guide(first=informed.first, mutated=informed.mutated, parts=PARTS)

    return evolved(space, asked, budget, seed=seed, progress=progress, guided=guided)


@dataclass(frozen=True)
class _AlongCurves:
    """The first population and the mutations of a genetic search.

    Attributes:
        slopes: at any widths.
        sizes: units of every group.
    """

    slopes: Slopes
    sizes: Floats

    def first(self, candidates: Candidates, individuals: int, rng: np.random.Generator) -> Floats:
        """Shares (individuals, groups): the plan along the curves, and those along curves that are off."""
        plans = [candidates.start()]
        while len(plans) < individuals:
            plans.append(candidates.shares(dict(self._along_others(rng) or candidates.point(plans[0]) or {})))
        return np.stack(plans)

    def mutated(self, shares: Floats, rng: np.random.Generator) -> Floats:
        """The same individuals, some groups of each a few parts narrower or wider."""
        moved = rng.random(shares.shape) < max(MUTATION, 1 / shares.shape[1])
        pulls = np.stack([self.slopes.pulls(own * self.sizes) for own in shares])
        way = np.where(rng.random(shares.shape) < 0.5 + TRUST / 2 * pulls, 1, -1)
        steps = rng.geometric(1 / STEP, shares.shape) / PARTS
        return np.clip(shares + np.where(moved, way * steps, 0.0), LEAST, 1.0)

    def _along_others(self, rng: np.random.Generator) -> Point | None:
        """The plan if every group's curve were off by a factor of its own; None where there is none."""
        known = self.slopes.objective
        factors = np.exp(ERROR * rng.standard_normal(len(known.curves)))
        curves = {n: replace(c, effect=f * c.effect) for (n, c), f in zip(known.curves.items(), factors, strict=True)}
        try:
            return greedy(self.slopes.space, replace(known, curves=curves), self.slopes.budget)
        except BudgetError:
            return None
