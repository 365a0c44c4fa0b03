"""Rounds of scoring, allocating, removing and repairing, as a method's schedule has them; one-shot is one round.

In rounds, effects are measured on the network as repaired so far, a part of the way to the budget is planned from
them, removed and repaired, and the joint effect is measured on images that the plan was not made from. Where it
disagrees with the prediction in the last round, that round is planned again, once, in two smaller steps.

A schedule that goes by groups plans all that is not decided yet to the budget in every round, and cuts its own part of
the groups as planned; they are decided then. So each part is planned on the network as the parts before it left it.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np

from whyprune.allocation import Budget, Constraints, allocate
from whyprune.allocation.evaluator import MeasuredPlans
from whyprune.allocation.fitness import Fitness
from whyprune.allocation.kept_plans import KeptPlans
from whyprune.data.batches import Batch, cut_images, sample_word
from whyprune.data.calibration import Calibration
from whyprune.effects.effects import Effects
from whyprune.effects.joint import Joint, joint_effect
from whyprune.effects.outcomes import Outcome
from whyprune.errors import InputError
from whyprune.methods import Method
from whyprune.pipeline.device_budget import Allocate
from whyprune.pipeline.evaluators import evaluator_of
from whyprune.pipeline.ties import said_of_ties
from whyprune.repair import repair
from whyprune.repair.registry import repair_named
from whyprune.scoring.contract import Question
from whyprune.structure.cost import Cost
from whyprune.structure.network import Network
from whyprune.structure.plan import Plan, make_plan
from whyprune.structure.remove import remove
from whyprune.structure.state import State

Clock = Callable[[str], AbstractContextManager[None]]
OnDevice = Callable[[Allocate, Budget], Plan]
"""Plans until a device confirms the plan."""
Recover = Callable[[State], State]

DISAGREEMENT = 2.0
"""A measured joint effect whose interval lies above twice the predicted one is no chance, and worth another round."""
LEAST_CERTAIN = 0.5


@dataclass(frozen=True)
class RoundsResult:
    """Where the rounds ended.

    Attributes:
        plan: what is removed in all.
        state: the network as removed, and repaired on the way.
        effects: what the scorer said in the first round, of the dense network.
        notes: sentences about rounds in which prediction and measurement disagreed.
    """

    plan: Plan
    state: State
    effects: Effects
    notes: list[str] = field(default_factory=list)


def prune_in_rounds(
    network: Network,
    calibration: Calibration,
    budget: Budget,
    *,
    method: Method,
    outcome: Outcome | str | None = None,
    constraints: Constraints | None = None,
    images: int = 0,
    views: int = 4,
    seed: int = 0,
    progress: bool = False,
    clock: Clock = lambda _: nullcontext(),
    on_device: OnDevice | None = None,
    recover: Recover | None = None,
    kept: KeptPlans | None = None,
    look: bool = True,
) -> RoundsResult:
    """Removes what a method chooses, round by round.

    Args:
        network: a traced model.
        calibration: the images.
        budget: what the result may cost.
        method: who judges, how much goes where, in which rounds, and what is repaired in between.
        outcome: what harm is (default `LogitShift`, of other outputs `OutputShift`).
        constraints: what must stay, relative to the dense network; they hold after every round.
        images: that a scorer without a wish of its own is given at most; 0 for all.
        views: augmented views of every image in the last repair; the others see one.
        seed: of everything drawn.
        progress: show progress bars.
        clock: times the steps.
        on_device: how the last round plans where a device has to confirm the plan.
        recover: fine-tunes between rounds, where the schedule asks for it.
        kept: plans that an interrupted search has measured, and where this one keeps its own.
        look: measure the joint effect after every round; not of a network that is not trained.

    Raises:
        InputError: a scorer or an allocation that cannot be used on this network or these images.
        BudgetError: no plan meets the budget.
    """
    rounds = _Rounds(network, calibration, method, outcome, constraints, images, seed, progress, kept, look)
    schedule, dense = method.schedule, network.cost()
    parts = schedule.parts(network.groups_as_run) if schedule.by_groups else []
    count = max(len(parts), 1) if schedule.by_groups else schedule.count(budget, dense)
    if schedule.by_groups and schedule.certain:
        rounds.notes.append(f"Schedule {schedule} decides every group once: units that are not settled went as well.")
    steps = [(number, False) for number in range(count)]
    while steps:
        number, half = steps[0]
        target = _target(budget, method, dense, network.cost(rounds.state.removed), number, count, half)
        final = len(steps) == 1
        with clock("estimate and allocate in rounds" if schedule.in_rounds else "estimate and allocate"):
            decided = {group.name for part in parts[:number] for group in part}
            plan = rounds.planned(target, final, on_device if final or schedule.by_groups else None, decided)
            if schedule.by_groups and not final:
                plan = rounds.part_of(plan, {group.name for group in parts[number]} | decided)
        with clock("repair" if schedule.in_rounds else "remove"):
            rounds.apply(plan, views if final else 1)
        if final and not half and schedule.replan and rounds.disagrees(plan):
            rounds.undo(plan)
            steps = [(number, True), *steps]
            schedule = replace(schedule, replan=False)
            continue
        if not final and recover is not None and schedule.recovery_epochs:
            with clock("recover between rounds"):
                rounds.recovered(recover)
        rounds.number, steps = rounds.number + 1, steps[1:]
    plan = rounds.plan.model_copy(update={"budget": budget.as_dict()})
    return RoundsResult(plan, rounds.state, rounds.effects, [*rounds.notes, *rounds.said_of_search()])


def _target(budget: Budget, method: Method, dense: Cost, now: Cost, number: int, count: int, half: bool) -> Budget:
    """What a round aims at; the budget itself, as it was asked for, where there is one round."""
    if not method.schedule.in_rounds:
        return budget
    target = method.schedule.target(budget, dense, now, number, count)
    return target.between(dense, now, 0.5) if half else target


class _Rounds:
    """The network as pruned and repaired so far.

    Attributes:
        state: the network now.
        number: of the round.
        plan: the last one.
        effects: what the scorer said in the first round.
    """

    plan: Plan
    effects: Effects

    def __init__(
        self,
        network: Network,
        calibration: Calibration,
        method: Method,
        outcome: Outcome | str | None,
        constraints: Constraints | None,
        images: int,
        seed: int,
        progress: bool,
        kept: KeptPlans | None,
        looking: bool,
    ) -> None:
        self.looking = looking
        self.network, self.calibration, self.method = network, calibration, method
        self.outcome, self.constraints, self.images = outcome, constraints, images
        self.seed, self.progress, self._kept = seed, progress, kept
        self.state = State.of(network)
        self.number = 0
        self.notes: list[str] = []
        self._joint: Joint | None = None
        self._before: tuple[State, Joint | None] = (self.state, None)
        self._searched: list[MeasuredPlans] = []
        self._repairing = method.schedule.in_rounds and repair_named(method.repair).between_rounds

    def planned(self, target: Budget, final: bool, on_device: OnDevice | None, decided: Collection[str] = ()) -> Plan:
        """A plan that meets the target, or comes nearer to it where the round is not the last.

        Of groups that are `decided` no further units go.
        """
        effects = self._scored()
        if self.number == 0 and not hasattr(self, "effects"):
            self.effects = effects
        evaluator = self._evaluator()

        def at(network: Network, budget: Budget, constraints: Constraints | None) -> Plan:
            return allocate(
                replace(self.state, network=network),
                replace(effects, method=self.method.name),
                budget,
                allocation=self.method.allocation,
                constraints=constraints,
                base=0.0 if self._joint is None else self._joint.mean,
                evaluator=evaluator,
                search_plans=self.method.search_plans,
                decided=decided,
                seed=self.seed + self.number,
                progress=self.progress,
            )

        plan = at(self.network, target, self.constraints) if on_device is None else on_device(at, target)
        said = said_of_ties(effects, self.method.scorer_name, {*plan.units} - {u.name for u in self.state.removed})
        self.notes += [said] if said and said not in self.notes else []
        schedule = self.method.schedule
        return plan if final or schedule.by_groups or not schedule.certain else self._certain(effects, plan)

    def part_of(self, plan: Plan, groups: Collection[str]) -> Plan:
        """The plan's removals of these groups alone; it says nothing of the joint effect."""
        units = [unit for unit in self.network.select(plan.units) if unit.group in groups]
        return make_plan(self.network, units, method=plan.method, budget=plan.budget)

    def apply(self, plan: Plan, views: int) -> None:
        """Removes what is new in the plan; in rounds it repairs on `views` views of the images, and looks."""
        self._before = (self.state, self._joint)
        self.state, self.plan = remove(self.state, plan.units), plan
        if self._repairing:
            first = 1_000 * (1 + self.number)
            self.state = repair(
                self.state,
                self.calibration.views(range(first, first + views)),
                outcome=self.outcome,
                seed=self.seed + self.number,
                progress=self.progress,
            )
        if self.method.schedule.in_rounds:
            self._look()

    def disagrees(self, plan: Plan) -> bool:
        """The measured effect is well above the prediction, and not by chance."""
        if self._joint is None or plan.predicted is None or len(self.state.removed) < 2:
            return False
        return self._joint.interval[0] > DISAGREEMENT * max(plan.predicted, 0.0)

    def undo(self, plan: Plan) -> None:
        """Goes back before the last `apply`."""
        measured = float("nan") if self._joint is None else self._joint.mean
        self.state, self._joint = self._before
        self.notes.append(
            f"Round {self.number + 1} predicted a joint effect of {plan.predicted:.3g}, {measured:.3g} was measured: "
            "it was planned again in two smaller steps."
        )

    def recovered(self, recover: Recover) -> None:
        """Fine-tunes, and looks again."""
        self.state = recover(self.state)
        self._look()

    def _look(self) -> None:
        """The joint effect of what is gone, on the images kept apart."""
        if self.looking:
            self._joint = joint_effect(self.state, self.calibration.audit, outcome=self.outcome)

    def _scored(self) -> Effects:
        question = Question(
            outcome=self.outcome,
            intervention=self.method.intervention,
            kinds=self.method.kinds,
            reduction=self.method.reduction,
            seed=self.seed + self.number,
            progress=self.progress,
        )
        found: object = self.method.judge(self.state, self._batches(), question)
        if not isinstance(found, Effects):
            raise InputError(f"scorer {self.method.scorer_name!r} gave {type(found).__name__}: it has to give Effects")
        return found

    def _batches(self) -> list[Batch]:
        """What the scorer is given; in rounds, a view of the images that no earlier round has seen."""
        in_rounds = self.method.schedule.in_rounds
        facts = self.method.scorer_facts
        new = in_rounds and facts.images
        batches = self.calibration.view(1 + self.number) if new else list(self.calibration.planning)
        most = next(n for n in (self.method.images, facts.most_images, self.images) if n is not None)
        return cut_images(batches, most)[0] if most else batches

    def _evaluator(self) -> MeasuredPlans | None:
        """Measures plans, where the allocation looks at the network itself."""
        if not self.method.searches:
            return None
        view = self.calibration.view(1 + self.number)
        found = evaluator_of(self.method, self.state, view, outcome=self.outcome, seed=self.seed, kept=self._kept)
        self._searched.append(found)
        return found

    def said_of_search(self) -> list[str]:
        """A sentence on what a search has measured, in all rounds."""
        if not self._searched:
            return []
        plans = sum(len(one.known) for one in self._searched)
        passes = sum(one.forward_passes for one in self._searched)
        images = sum(map(len, self._searched[0].batches))
        return [
            f"The search measured {plans:,} plans by their {Fitness.parse(self.method.fitness)} on {images:,} "
            f"calibration {sample_word(self._searched[0].batches[0])}: {passes:,.0f} forward passes of one."
        ]

    def _certain(self, effects: Effects, plan: Plan) -> Plan:
        """The plan without units whose removal is still open, where constraints leave that choice."""
        gone = {u.name for u in self.state.removed}
        fresh = [name for name in plan.units if name not in gone]
        certain = certain_removals(effects, fresh)
        constraints = self.constraints or Constraints()
        bounded = bool(constraints.as_dict() or constraints.stops)  # fewer units of a group may break a multiple
        if bounded or len(certain) == len(fresh):
            return plan
        still = len(fresh) - len(certain)
        self.notes.append(f"{still} of the {len(fresh)} removals of a round were not settled, and measured again.")
        return make_plan(
            self.network,
            [*self.state.removed, *certain],
            method=plan.method,
            budget=plan.budget,
            predicted=(0.0 if self._joint is None else self._joint.mean) + float(sum(effects[n] for n in certain)),
        )


def certain_removals(effects: Effects, chosen: Sequence[str]) -> list[str]:
    """Those of `chosen` whose interval lies below those of all others; at least half, the lowest effects first."""
    low, high = (dict(zip(effects.units, bound.tolist(), strict=True)) for bound in effects.interval)
    rest = set(effects.units) - set(chosen)
    wall = min((low[name] for name in rest), default=np.inf)
    order = sorted(chosen, key=lambda name: effects[name])
    certain = [name for name in order if high[name] < wall]
    return max(certain, order[: int(np.ceil(LEAST_CERTAIN * len(order)))], key=len)
