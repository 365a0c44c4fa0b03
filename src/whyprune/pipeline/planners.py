"""How a round of the causal method plans: by response curves, or by conditional effects of single units.

Both measure on the network as pruned and repaired so far, on a view of the images that no earlier round has seen.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from torch import nn

from whyprune.allocation import Budget, allocate_curves, allocate_global
from whyprune.allocation.constraints import Constraints
from whyprune.causal.exact import exact_effects
from whyprune.causal.response.bypass import bypass_effects
from whyprune.causal.response.curves import response_curves
from whyprune.data.batches import Batch, cut_images, split_images
from whyprune.effects.effects import Effects, ResponseCurve
from whyprune.effects.outcomes import Outcome
from whyprune.structure.network import Network
from whyprune.structure.plan import Plan, make_plan
from whyprune.structure.state import State
from whyprune.structure.units import Unit

Allocate = Callable[[Network, Budget, Constraints | None], Plan]
"""Plans for a network at its prices."""
Fit = Callable[[Allocate, Budget], Plan]

FIT_IMAGES, EFFECT_IMAGES = 512, 64
LEAST_SETTLED = 0.5


@dataclass(frozen=True)
class Round:
    """What a planner may know.

    Attributes:
        network: the traced model.
        model: the network without `removed`, as repaired so far.
        removed: the units that are gone.
        base: the joint effect of their removal.
        images: a view of the images to plan from.
        last: whether the target is the whole budget.
        fit: plans from what was measured, once, or until a device confirms the plan.
        blocks: residual blocks may go as a whole.
    """

    network: Network
    model: nn.Module
    removed: tuple[Unit, ...]
    base: float
    images: Sequence[Batch]
    outcome: Outcome | str | None
    constraints: Constraints | None
    last: bool
    seed: int
    progress: bool
    fit: Fit | None = None
    blocks: bool = False

    def fitted(self, allocate: Allocate, target: Budget) -> Plan:
        """The plan for a target; on a device, one that was measured to meet it."""
        if self.fit is None:
            return allocate(self.network, target, self.constraints)
        return self.fit(allocate, target)


class Planner(Protocol):
    """Plans one round; `step` is how many times cheaper the network gets in a round."""

    step: float
    curves: Mapping[str, ResponseCurve]
    notes: list[str]

    def plan(self, now: Round, target: Budget) -> Plan:
        """A plan that meets the target, or comes nearer to it where the round is not the last."""
        ...


@dataclass
class ByCurves:
    """Widths and channels from response curves, residual blocks from the effects of bypassing them.

    The curves of the first round are kept.
    """

    step: float = 2.0
    curves: Mapping[str, ResponseCurve] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def plan(self, now: Round, target: Budget) -> Plan:
        """Measures response curves and spends the least effect per cost saved."""
        fit, measure = split_images(now.images)
        curves = response_curves(
            State(now.network, now.model, now.removed),
            cut_images(fit, FIT_IMAGES)[0],
            measure,
            outcome=now.outcome,
            seed=now.seed,
            progress=now.progress,
        )
        self.curves = self.curves or curves
        bypass = self._bypass(now, fit, measure) if now.blocks else {}

        def allocate(network: Network, budget: Budget, constraints: Constraints | None) -> Plan:
            return allocate_curves(
                network, curves, budget, removed=now.removed, base=now.base, bypass=bypass, constraints=constraints
            )

        return now.fitted(allocate, target)

    @staticmethod
    def _bypass(now: Round, fit: Sequence[Batch], measure: Sequence[Batch]) -> dict[str, float]:
        found = bypass_effects(
            State(now.network, now.model, now.removed),
            fit,
            measure,
            outcome=now.outcome,
            seed=now.seed,
            progress=now.progress,
        )
        return {name: block.effect for name, block in found.items()}


@dataclass
class ByEffects:
    """Units by their conditional, unique effect: what none of those that stay can carry, given what is gone.

    Before the last round only units go whose place is settled: the interval of their effect lies below that of every
    unit that would stay. At least half of a round's units go all the same, so that rounds come to an end.
    """

    step: float = 1.25
    intervention: str = "carried"
    curves: Mapping[str, ResponseCurve] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def plan(self, now: Round, target: Budget) -> Plan:
        """Measures conditional effects of all units and removes the lowest."""
        effects = exact_effects(
            State(now.network, now.model, now.removed),
            cut_images(now.images, EFFECT_IMAGES)[0],
            outcome=now.outcome,
            intervention=self.intervention,
            progress=now.progress,
        )
        effects = replace(effects, method="conditional", estimand="conditional")

        def allocate(network: Network, budget: Budget, constraints: Constraints | None) -> Plan:
            return allocate_global(
                network, effects, budget, removed=now.removed, base=now.base, constraints=constraints
            )

        plan = now.fitted(allocate, target)
        return plan if now.last else self._settled(now, effects, plan)

    def _settled(self, now: Round, effects: Effects, plan: Plan) -> Plan:
        """The plan without units whose removal is still open, where constraints leave that choice."""
        gone = {u.name for u in now.removed}
        fresh = [name for name in plan.units if name not in gone]
        certain = settled(effects, fresh)
        constraints = now.constraints or Constraints()
        bounded = bool(constraints.as_dict() or constraints.stops)  # fewer units of a group may break a multiple
        if bounded or len(certain) == len(fresh):
            return plan
        still = len(fresh) - len(certain)
        self.notes.append(f"{still} of the {len(fresh)} removals of a round were not settled, and measured again.")
        return make_plan(
            now.network,
            [*now.removed, *certain],
            method=plan.method,
            budget=plan.budget,
            predicted=now.base + float(sum(effects[name] for name in certain)),
        )


def settled(effects: Effects, chosen: Sequence[str]) -> list[str]:
    """Those of `chosen` whose interval lies below those of all others; at least half, the lowest effects first."""
    low, high = (dict(zip(effects.units, bound.tolist(), strict=True)) for bound in effects.interval)
    rest = set(effects.units) - set(chosen)
    wall = min((low[name] for name in rest), default=np.inf)
    order = sorted(chosen, key=lambda name: effects[name])
    certain = [name for name in order if high[name] < wall]
    return max(certain, order[: int(np.ceil(LEAST_SETTLED * len(order)))], key=len)
