"""Particle swarm around the widths that a scorer suggests, each plan measured on the network.

Chang et al., ACP, Applied Intelligence 2022, second stage. [C] ten particles at n_j + i s with s drawn from {-1, 0, 1}
for particle i, velocities in [-2, 2], eight cycles, inertia w = 0.5 (8 - t) / 20 + 0.4, c1 = c2 = 2, one random
number per particle, v <- 0.729 (w v + c1 R (own best - x) + c2 R (best - x)) cut to [-2, 2], x <- int(x + 2 v) in eight
dimensions drawn at random. Not taken over: the code moves eight drawn dimensions by the velocities of the first eight
(velocities here belong to the dimension), has no cost in its fitness (every particle is brought to the budget's edge),
and takes the fitness on test images (here the method's fitness says what is measured, on calibration images). More
or fewer plans are more or fewer cycles, over which the inertia falls as over eight; below thirty, fewer particles [I].
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from whyprune.allocation.budget import Budget
from whyprune.allocation.candidates import Candidates, Floats
from whyprune.allocation.contract import allocator
from whyprune.allocation.objective import Objective
from whyprune.allocation.reach import check_reachable
from whyprune.allocation.space import Point, Space
from whyprune.progress import Progress

PARTICLES, CYCLES, MOVED, LIMIT = 10, 8, 8, 2.0
PLANS = PARTICLES * (CYCLES + 1)
FEWEST_PARTICLES, FEWEST_CYCLES = 2, 2
C1 = C2 = 2.0
GUIDED = 1.0
"""The weight of pulls, where there are any: half that of the best."""
CONSTRICTION = 0.729


@allocator(
    "particle-swarm",
    summary="a particle swarm around the widths that the scorer suggests, each plan measured (ACP, second stage)",
    needs="evaluator",
    guarantee="no worse than where it starts, on the images it measured plans on",
    paper="Chang et al., Applied Intelligence 2022",
    plans=PLANS,
    fewest_plans=FEWEST_PARTICLES * (FEWEST_CYCLES + 1),
)
def particle_swarm(
    space: Space, objective: Objective, budget: Budget, *, seed: int = 0, progress: bool = False
) -> Point:
    """The best point that any particle visited.

    Raises:
        BudgetError: no particle met the budget.
        InputError: no network that was measured gave finite numbers.
    """
    return swarmed(space, objective, budget, seed=seed, progress=progress)


def swarmed(
    space: Space,
    objective: Objective,
    budget: Budget,
    *,
    seed: int,
    progress: bool,
    pulls: Callable[[Floats], Floats] | None = None,
) -> Point:
    """The best point that any particle visited.

    Args:
        space: of the points.
        objective: measures them.
        budget: that all of them meet.
        seed: of everything drawn.
        progress: show a progress bar.
        pulls: widths -> of every group a number from -1 (narrower) to 1 (wider), added to the velocity as one more
            attraction of `GUIDED` times the largest velocity; None for the paper's rule.

    Raises:
        BudgetError: no particle met the budget.
        InputError: no network that was measured gave finite numbers.
    """
    check_reachable(space, budget)
    particles, cycles = _effort(objective.plans or PLANS)
    with Progress(progress) as bars:
        bar = bars.add("Measuring plans", particles * (cycles + 1))
        candidates = Candidates(space, objective, budget, lambda: bars.advance(bar))
        swarm = _Swarm.around(candidates, np.random.default_rng(seed), particles, pulls)
        for cycle in range(cycles):
            swarm.move(cycle * CYCLES / cycles)
    return candidates.chosen(swarm.best / candidates.sizes, swarm.best_harm, "particle")


def _effort(plans: int) -> tuple[int, int]:
    """(particles, cycles) that measure so many plans at most."""
    particles = min(PARTICLES, max(FEWEST_PARTICLES, plans // (FEWEST_CYCLES + 1)))
    return particles, max(FEWEST_CYCLES, plans // particles - 1)


@dataclass
class _Swarm:
    """Widths (particles, groups), their velocities, and the best that each of them and all have seen."""

    candidates: Candidates
    rng: np.random.Generator
    widths: Floats
    velocities: Floats
    own_best: Floats
    own_harm: Floats
    pulls: Callable[[Floats], Floats] | None

    @classmethod
    def around(
        cls,
        candidates: Candidates,
        rng: np.random.Generator,
        particles: int,
        pulls: Callable[[Floats], Floats] | None,
    ) -> "_Swarm":
        """Particles around the suggested widths; the first one is on them."""
        start = np.round(candidates.start() * candidates.sizes)
        steps = np.arange(particles)[:, None] * rng.integers(-1, 2, (particles, len(start)))
        widths = np.clip(start + steps, 1, candidates.sizes)
        velocities = rng.uniform(-LIMIT, LIMIT, widths.shape)
        harms = np.array([candidates.harm(x / candidates.sizes) for x in widths])
        return cls(candidates, rng, widths, velocities, widths.copy(), harms, pulls)

    @property
    def best(self) -> Floats:
        """The widths with the least harm that any particle has seen."""
        found: Floats = self.own_best[int(np.argmin(self.own_harm))]
        return found

    @property
    def best_harm(self) -> float:
        """Their harm."""
        return float(self.own_harm.min())

    def move(self, cycle: float) -> None:
        """A cycle, at a place among the paper's eight: particles move along some dimensions, and are measured."""
        inertia = 0.5 * (CYCLES - cycle) / 20 + 0.4
        best, sizes = self.best, self.candidates.sizes
        for k, x in enumerate(self.widths):
            pull = self.rng.random()
            towards = C1 * pull * (self.own_best[k] - x) + C2 * pull * (best - x)
            if self.pulls is not None:
                towards = towards + GUIDED * LIMIT * self.rng.random() * self.pulls(x)
            moved = CONSTRICTION * (inertia * self.velocities[k] + towards)
            self.velocities[k] = np.clip(moved, -LIMIT, LIMIT)
            chosen = self.rng.choice(len(x), min(MOVED, len(x)), replace=False)
            x[chosen] = np.clip(np.trunc(x[chosen] + 2 * self.velocities[k, chosen]), 1, sizes[chosen])
            harm = self.candidates.harm(x / sizes)
            if harm < self.own_harm[k]:
                self.own_best[k], self.own_harm[k] = x.copy(), harm
