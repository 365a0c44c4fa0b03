"""The causal method: rounds of measuring, planning, removing and repairing, each conditional on what is already gone.

Effects of groups do not add up, and single effects are blind to units that stand in for each other. So a plan is made
in rounds: effects are measured on the network as repaired so far, a part of the way to the budget is planned from
them, removed and repaired, and the joint effect is measured on images that the plan was not made from. Where it
disagrees with the prediction in the last round, that round is planned again, once, in two smaller steps.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from whyprune.allocation import Budget
from whyprune.allocation.constraints import Constraints
from whyprune.data.calibration import Calibration
from whyprune.effects.effects import ResponseCurve
from whyprune.effects.joint import Joint, joint_effect
from whyprune.effects.outcomes import Outcome
from whyprune.pipeline.planners import ByCurves, Fit, Planner, Round
from whyprune.repair import repair
from whyprune.structure.network import Network
from whyprune.structure.plan import Plan
from whyprune.structure.remove import cut, removal_of
from whyprune.structure.state import State
from whyprune.structure.units import Unit, removed_indices

Clock = Callable[[str], AbstractContextManager[None]]
DISAGREEMENT = 2.0


@dataclass(frozen=True)
class RoundsResult:
    """The plan, the network as repaired on the way, and the response curves of the first round.

    Attributes:
        notes: sentences about rounds in which prediction and measurement disagreed.
    """

    plan: Plan
    model: nn.Module
    curves: dict[str, ResponseCurve]
    notes: list[str] = field(default_factory=list)


def prune_in_rounds(
    network: Network,
    calibration: Calibration,
    budget: Budget,
    *,
    outcome: Outcome | str | None = None,
    constraints: Constraints | None = None,
    planner: Planner | None = None,
    views: int = 4,
    repairing: bool = True,
    seed: int = 0,
    progress: bool = False,
    clock: Clock = lambda _: nullcontext(),
    fit: Fit | None = None,
    blocks: bool = False,
) -> RoundsResult:
    """Plans the removal in rounds.

    Args:
        network: a traced model.
        calibration: the images.
        budget: what the result may cost.
        outcome: what harm is (default `LogitShift`).
        constraints: what must stay, relative to the dense network; they hold after every round.
        planner: how a round is planned; default: by response curves.
        views: augmented views of every image in the last repair; the others see one.
        repairing: refit after every round.
        seed: of everything drawn.
        progress: show progress bars.
        clock: times the steps.
        fit: how the last round plans where a device has to confirm the plan.
        blocks: residual blocks may go as a whole, where the planner can tell what that does.
    """
    planner = ByCurves() if planner is None else planner
    state = _State(network, calibration, outcome, constraints, repairing, seed, progress, fit, blocks)
    shares = _shares(network, budget, planner.step)
    while shares:
        target = budget.between(network.cost(), network.cost(state.removed), shares[0])
        with clock("estimate and allocate in rounds"):
            planned = planner.plan(state.now(last=len(shares) == 1), target)
        with clock("repair"):
            state.apply(planned, views if len(shares) == 1 else 1)
        joint = state.joint()
        if _disagree(planned.predicted, joint) and shares[0] > 0.5 and len(state.removed) > 1 and not state.replanned:
            state.undo(planned, joint)
            shares = [0.5, *shares]
            continue
        state.commit()
        shares = shares[1:]
    plan = state.last.model_copy(update={"budget": budget.as_dict()})
    return RoundsResult(plan, state.model, dict(planner.curves), [*planner.notes, *state.notes])


def _shares(network: Network, budget: Budget, step: float) -> list[float]:
    """Of the way still to go, how much each round takes: steps of about `step` times fewer."""
    dense = network.cost()
    farthest = max(getattr(dense, kind) / limit for kind, limit in budget.limits(dense).items())
    rounds = max(1, round(math.log(max(farthest, 1.0)) / math.log(step)))
    return [1 / (rounds - k) for k in range(rounds)]


def _disagree(predicted: float | None, joint: Joint) -> bool:
    """The measured effect is well above the prediction, and not by chance."""
    return predicted is not None and joint.interval[0] > DISAGREEMENT * max(predicted, 0.0)


class _State:
    """The network as pruned and repaired so far."""

    def __init__(
        self,
        network: Network,
        calibration: Calibration,
        outcome: Outcome | str | None,
        constraints: Constraints | None,
        repairing: bool,
        seed: int,
        progress: bool,
        fit: Fit | None,
        blocks: bool,
    ) -> None:
        self.fit, self.blocks = fit, blocks
        self.network, self.calibration = network, calibration
        self.outcome, self.constraints, self.repairing = outcome, constraints, repairing
        self.seed, self.progress = seed, progress
        self.model: nn.Module = network.model
        self.removed: tuple[Unit, ...] = ()
        self.notes: list[str] = []
        self.replanned = False
        self.round = 0
        self.last: Plan
        self._before: tuple[nn.Module, tuple[Unit, ...]] = (self.model, ())

    def now(self, last: bool) -> Round:
        """What a planner may know."""
        return Round(
            network=self.network,
            model=self.model,
            removed=self.removed,
            base=self.joint().mean if self.removed else 0.0,
            images=self.calibration.view(1 + self.round),
            outcome=self.outcome,
            constraints=self.constraints,
            last=last,
            seed=self.seed + self.round,
            progress=self.progress,
            fit=self.fit if last else None,
            blocks=self.blocks,
        )

    def apply(self, plan: Plan, views: int) -> None:
        """Removes what is new in the plan and repairs on `views` views of the images."""
        self._before = (self.model, self.removed)
        units = self.network.select(plan.units)
        self.model = remove_further(self.network, self.model, self.removed, units)
        self.removed = units
        if self.repairing:
            self.model = repair(
                self.network,
                self.model,
                units,
                self.calibration.views(range(1_000 * (1 + self.round), 1_000 * (1 + self.round) + views)),
                outcome=self.outcome,
                seed=self.seed + self.round,
                progress=self.progress,
            )
        self.last = plan

    def joint(self) -> Joint:
        """The joint effect of what is gone, on the images kept apart."""
        return joint_effect(State(self.network, self.model, self.removed), self.calibration.audit, outcome=self.outcome)

    def undo(self, plan: Plan, joint: Joint) -> None:
        """Goes back before the last `apply`."""
        self.model, self.removed = self._before
        self.replanned = True
        self.notes.append(
            f"Round {self.round + 1} predicted a joint effect of {plan.predicted:.3g}, {joint.mean:.3g} was measured: "
            "it was planned again in two smaller steps."
        )

    def commit(self) -> None:
        """Goes on to the next round."""
        self.round += 1


def remove_further(network: Network, model: nn.Module, gone: Sequence[Unit], units: Sequence[Unit]) -> nn.Module:
    """Cuts a network that already lacks `gone` down to one that lacks `units`, a superset."""
    before, removal = removed_indices(gone), removal_of(network, units)
    moved = {}
    for key, indices in removal.removed.items():
        kept = np.setdiff1d(
            np.arange(network.cost.shapes[key[0]][key[1]]), before.get(key, np.array([], dtype=np.int64))
        )
        fresh = np.flatnonzero(np.isin(kept, indices))
        if len(fresh):
            moved[key] = fresh
    return cut(model, moved, removal.attributes, removal.blocks)
