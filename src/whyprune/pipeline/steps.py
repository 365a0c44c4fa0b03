"""The steps of a run between its start and its record: choose, remove, verify, repair, look, refute, recover."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch

from whyprune.allocation.kept_plans import KeptPlans
from whyprune.causal.refutation import refute
from whyprune.causal.refutation.suite import FEWEST as FEWEST_TO_REFUTE
from whyprune.data.batches import Batch, sample_word
from whyprune.devices import Accuracy
from whyprune.effects.effects import Effects
from whyprune.effects.joint import joint_effect
from whyprune.effects.output_shift import OutputShift
from whyprune.pipeline.evaluators import said_of
from whyprune.pipeline.measure import certificate
from whyprune.pipeline.rounds import prune_in_rounds
from whyprune.pipeline.run import Run
from whyprune.pipeline.single_effects import single_effects
from whyprune.pipeline.stage import SEARCH, Stage, StageRecord, load_stage, save_stage
from whyprune.pipeline.why_off import why_off
from whyprune.recovery import RecoveryResult, recover
from whyprune.repair.registry import RepairCase, repair_named
from whyprune.results import AccuracyAfter, JointEffect, Refutation, Verification
from whyprune.scoring.contract import Question
from whyprune.scoring.registry import SCORERS
from whyprune.structure.notes import widths_not_proven
from whyprune.structure.plan import Plan
from whyprune.structure.remove import remove
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.training import check_training
from whyprune.structure.verify import verify

CHECKPOINT = "checkpoint.safetensors"
UNSEEN = 500_000
"""From this number on, views of the images are nobody else's."""


@dataclass(frozen=True)
class Chosen:
    """What goes.

    Attributes:
        plan: all of it.
        effects: of every unit, for the report.
        state: the network as the rounds left it.
        refitted: whether it was refitted on the way.
    """

    plan: Plan
    effects: Effects
    state: State
    refitted: bool


def resumed(run: Run) -> Stage | None:
    """The finished stage of an interrupted run; None where there is none, or nothing is to be resumed."""
    if not run.resume or run.folder is None:
        return None
    stage = load_stage(run.network.model, run.folder, run.asked)
    if stage is not None:
        run.timings = dict(stage.record.timings_s)
    return stage


def choose(run: Run) -> Chosen:
    """Scores and allocates, in rounds where the schedule has them; then measures what the report shows of units."""
    run.price_for_device()
    method = run.method
    kept = KeptPlans(run.folder / SEARCH, resume=run.resume) if run.folder is not None and method.searches else None
    with kept or nullcontext():
        rounds = prune_in_rounds(
            run.network,
            run.calibration,
            run.budget,
            method=method,
            outcome=run.outcome,
            constraints=run.constraints,
            images=run.settings.effect_images,
            views=run.settings.views,
            seed=run.seed,
            progress=run.progress,
            clock=run.step,
            on_device=run.device_budget,
            recover=lambda state: _recovered_between(run, state),
            kept=kept,
            look=not run.untrained,
        )
    run.notes += [*rounds.notes, *said_of(method, run.network), *(() if kept is None else kept.notes())]
    plan = rounds.plan.model_copy(update={"widening": run.widening})
    run.notes += widths_not_proven(run.network, plan.removed_per_group())
    effects = rounds.effects
    if not run.untrained and (method.schedule.in_rounds or effects.estimand == "curve"):
        with run.step("estimate single effects"):
            single, said = single_effects(
                run.network,
                run.calibration.planning,
                plan.units,
                passes=run.settings.effect_passes,
                images=run.settings.effect_images,
                outcome=run.outcome,
                seed=run.seed,
                progress=run.progress,
            )
        run.notes += [said] if said else []
        effects = replace(single, curves=effects.curves, blocks=effects.blocks)
    refitted = method.schedule.in_rounds and repair_named(method.repair).between_rounds
    return Chosen(plan, effects, rounds.state, refitted)


def removed(run: Run, chosen: Chosen) -> State:
    """The original without the units of the plan, before any repair."""
    with run.step("remove"):
        return remove(State.of(run.network), chosen.plan.units)


def proven(run: Run, bare: State) -> Verification:
    """The proof that the removal did what it says, on the run's own images.

    Raises:
        VerificationError: it did not.
    """
    with run.step("verify"):
        if run.recovery is not None:
            check_training(bare)
        return verify(bare, run.calibration.planning, seed=run.seed)


def repaired(run: Run, bare: State, chosen: Chosen) -> State:
    """The network after the method's repair, which goes on from what rounds have refitted."""
    trained = run.method.schedule.recovery_epochs > 0
    case = RepairCase(
        state=chosen.state if chosen.refitted or trained else bare,
        refitted=chosen.refitted,
        views=lambda stage: run.calibration.views(range(first := (1_000, UNSEEN)[stage], first + run.settings.views)),
        outcome=run.outcome,
        seed=run.seed,
        progress=run.progress,
    )
    chosen_repair = repair_named(run.method.repair)
    with run.step("repair"):
        mended = chosen_repair.apply(case)
    if chosen_repair.omitted is not None:
        run.notes += [said for said in (chosen_repair.omitted(bare), _kept(bare, mended)) if said]
    return mended


def _kept(bare: State, mended: State) -> str:
    """A sentence where repair has changed nothing."""
    pairs = zip(bare.model.parameters(), mended.model.parameters(), strict=True)
    if not bare.removed or any(not torch.equal(old, new) for old, new in pairs):
        return ""
    return "Repair left all weights as they were: new ones would have made the outcome no better on its own images."


def staged(run: Run, chosen: Chosen, bare: State, proof: Verification, mended: State) -> Stage:
    """Everything that is known up to repair, measured, and kept in the workspace where a recovery follows."""
    measured = not run.untrained  # what drawn weights answer is chance
    dense = run.accuracy(run.dense.model, "of the dense network") if measured else None
    bare_accuracy = run.accuracy(bare.model, "after removal") if measured else None
    repairs = measured and run.method.repair != "none"
    repaired_accuracy = run.accuracy(mended.model, "after repair") if repairs else None
    last = repaired_accuracy or bare_accuracy
    joint = _joint(run, chosen, bare, mended) if measured else None
    wrong = None if dense is None else np.flatnonzero(~dense.correct).tolist()
    record = StageRecord(
        asked=run.asked,
        verify=proof,
        joint_effect=joint,
        accuracy_after=AccuracyAfter(removal=_top1(bare_accuracy), repair=_top1(repaired_accuracy)),
        dense_top1_percent=_top1(dense),
        dense_top1_interval_percent=None if dense is None else dense.interval_percent,
        chance_percent=None if dense is None else dense.chance_percent,
        repaired_top1_interval_percent=None if last is None else last.interval_percent,
        dense_wrong=wrong,
        certificate=certificate(wrong, last),
        refutations=[] if joint is None else _refutations(run, joint),
        budgets=[] if run.device_budget is None else run.device_budget.records(chosen.plan),
        timings_s=run.timings,
        notes=run.notes,
    )
    stage = Stage(chosen.plan, mended.model, chosen.effects, record)
    if run.folder is not None and run.recovery is not None:
        save_stage(stage, run.folder)
    return stage


def recovered(run: Run, stage: Stage) -> RecoveryResult | None:
    """The network after fine-tuning; None where none was asked for."""
    if run.recovery is None:
        return None
    checkpoint = None if run.folder is None else run.folder / CHECKPOINT
    with run.step("recover"):
        return recover(
            State(run.network, stage.model, run.network.select(stage.plan.units), likeness=False),
            run.training_data,
            run.recovery,
            positional=run.network.positional,
            seed=run.seed,
            checkpoint=checkpoint,
            resume=run.resume and checkpoint is not None and checkpoint.exists(),
            progress=run.progress,
        )


def _recovered_between(run: Run, state: State) -> State:
    """The state after a few epochs of fine-tuning between two rounds."""
    assert run.recovery is not None  # `start_run` has checked it
    few = run.recovery.model_copy(update={"epochs": run.method.schedule.recovery_epochs})
    found = recover(
        state, run.training_data, few, positional=run.network.positional, seed=run.seed, progress=run.progress
    )
    return state.with_model(found.model)


def _joint(run: Run, chosen: Chosen, bare: State, mended: State) -> JointEffect:
    """Predicted and measured, on images that neither plan nor repair has seen."""
    with run.step("measure joint effect"):
        removal = joint_effect(bare, run.calibration.audit, outcome=run.outcome)
        found = joint_effect(mended, run.calibration.audit, outcome=run.outcome)
        off_by = why_off(run, chosen.plan, found, bare, mended, curves=bool(chosen.effects.curves))
        if isinstance(run.outcome, OutputShift):
            _say_what_stands_still(run, run.outcome)
    return JointEffect(
        outcome=found.outcome,
        predicted=chosen.plan.predicted,
        measured=found.mean,
        interval=found.interval,
        after_removal=removal.mean,
        another=found.another,
        constant=found.constant,
        untaught=found.untaught,
        off_by=off_by,
        by_output=dict(found.by_output),
        images=found.images,
    )


def _say_what_stands_still(run: Run, outcome: OutputShift) -> None:
    """Notes the outputs that are the same for every image, which no distance in terms of their variance can see."""
    if len(outcome.parts) > 1:
        dense = Replay(run.network)
        for sentence in outcome.fit(torch.cat([dense.logits(b) for b in run.calibration.audit])).notes:
            run.note(sentence)


def _refutations(run: Run, joint: JointEffect) -> list[Refutation]:
    """Units are judged again by what the scorer names as its judge: itself, or the truth behind its curves."""
    if not run.settings.refute:
        return []
    if sum(map(len, run.calibration.audit)) < FEWEST_TO_REFUTE:
        word = sample_word(run.calibration.audit[0])
        run.notes.append(
            f"Nothing was tried to refute the effects: fewer than {FEWEST_TO_REFUTE} of the calibration {word} are "
            "kept apart; give more of them."
        )
        return []
    name = run.method.scorer_facts.judge
    judging = SCORERS(name) if name else run.method.judge

    def judge(state: State, batches: Sequence[Batch], units: Sequence[str]) -> Effects:
        intervention = None if name else run.method.intervention
        question = Question(outcome=run.outcome, intervention=intervention, units=tuple(units), seed=run.seed)
        return judging(state, batches, question).only(units)

    with run.step("refute"):
        return list(
            refute(
                run.network,
                run.calibration.audit,
                judge,
                outcome=run.outcome,
                joint=joint,
                seed=run.seed,
                progress=run.progress,
            )
        )


def _top1(measured: Accuracy | None) -> float | None:
    return None if measured is None else measured.top1_percent
