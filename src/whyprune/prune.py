"""`prune`: trace, estimate, allocate, remove, repair, verify, recover, measure, explain; top to bottom."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from whyprune.allocation import Budget, allocate, check_reachable
from whyprune.allocation.constraints import Constraints
from whyprune.causal.refutation import refute
from whyprune.causal.refutation.suite import FEWEST as FEWEST_TO_REFUTE
from whyprune.data.batches import Batch, cut_images
from whyprune.data.calibration import Augment, Calibration, calibrate
from whyprune.devices import Accuracy, Device, accuracy
from whyprune.devices.registry import device as named
from whyprune.effects.effects import Effects
from whyprune.effects.joint import joint_effect
from whyprune.effects.outcomes import Outcome, as_outcome
from whyprune.pipeline.device_budget import Aim, aimed, check_aim, with_memory
from whyprune.pipeline.measure import certificate, measured_run
from whyprune.pipeline.result import Result
from whyprune.pipeline.rounds import prune_in_rounds
from whyprune.pipeline.settings import CAUSAL, PLANNERS, REFITTING, Settings
from whyprune.pipeline.stage import Stage, StageRecord, load_stage, save_stage
from whyprune.recovery import Recovery, RecoveryResult, recover
from whyprune.repair import reconstruct, reestimate_batch_norm, repair, repair_constants
from whyprune.results import AccuracyAfter, JointEffect, Refutation
from whyprune.scoring.estimate import CRITERIA, CURVES, estimate
from whyprune.structure.network import Network
from whyprune.structure.plan import Plan
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace
from whyprune.structure.verify import verify

CHECKPOINT = "checkpoint.safetensors"
UNSEEN = 500_000
"""From this number on, views of the images are nobody else's."""


@dataclass
class _Run:
    """What every step of one run shares."""

    network: Network
    calibration: Calibration
    outcome: Outcome
    constraints: Constraints
    settings: Settings
    seed: int
    progress: bool
    test: Iterable[Any] | None
    device: Device | None = None
    aim: Aim | None = None
    timings: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Times a step."""
        start = time.perf_counter()
        yield
        self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - start

    def accuracy(self, model: nn.Module, name: str) -> Accuracy | None:
        """Top-1 on the test data, if there is any."""
        if self.test is None:
            return None
        with self.step("measure accuracy"):
            return accuracy(model, self.test, progress=self.progress, description=f"Accuracy {name}")


def prune(
    model: nn.Module,
    data: Iterable[Any],
    *,
    budget: Budget,
    example_inputs: Any,
    method: str = CAUSAL,
    outcome: Outcome | str | None = None,
    constraints: Constraints | None = None,
    recovery: Recovery | None = None,
    recovery_data: Any = None,
    test: Iterable[Any] | None = None,
    augment: Augment | None = None,
    settings: Settings | None = None,
    workspace: str | os.PathLike[str] | None = None,
    resume: bool = False,
    asked: dict[str, Any] | None = None,
    device: Device | str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Result:
    """Prunes a trained network to a budget, proves the removal right, repairs it, measures it, and says why.

    Args:
        model: a trained network in evaluation mode; it is never changed.
        data: calibration batches: tensors, tuples or dicts; about 1,024 images. Labels only if the outcome needs them.
        budget: what the result may cost.
        example_inputs: a tensor, a tuple or a dict of inputs to trace the model on.
        method: `causal` (rounds of measured response curves), `conditional` (rounds of conditional effects), or any
            method of `estimate`, to compare with: `exact`, `curves`, `random`, `magnitude-l2`, `taylor`, ...
        outcome: what harm is; default `logit-shift`, which needs no labels.
        constraints: what pruning must leave alone: layers, multiples, least widths, largest shares, ties.
        recovery: fine-tune afterwards; needs labelled `recovery_data` (default: `data`).
        recovery_data: labelled training batches or a dataset.
        test: labelled batches for top-1 accuracy, never used for any decision.
        augment: (images, generator) -> images; gives the repair more views of the calibration images.
        settings: how to go about it.
        workspace: folder for finished stages and the recovery's checkpoints.
        resume: go on from what is in `workspace`.
        asked: further facts to record of what was asked for.
        device: a `Device` or its name (`local-ort-1t`): where a latency or energy budget holds, and where the networks
            are timed in the end. Default: PyTorch on this machine, on one thread.
        seed: of everything drawn; the same seed on the same machine gives the same plan.
        progress: show progress bars.

    Raises:
        InputError: data, settings or constraints that cannot be used; a model in training mode.
        TraceError: the model cannot be captured.
        BudgetError: no plan meets the budget; the message has the smallest reachable value.
        VerificationError: the removal cannot be proven right.
    """
    settings = settings or Settings()
    settings.check_fits(method)
    start = time.perf_counter()
    constraints = constraints or Constraints()
    constraints = replace(constraints, ignore=(*settings.ignore, *constraints.ignore))
    where = named(device) if isinstance(device, str) else device
    check_aim(budget, where)
    network = constraints.prepared(trace(model, example_inputs, heads=settings.heads))
    network = with_memory(network, budget, where)
    widths = replace(constraints, ignore=(), together=())  # these two are in the network by now
    calibration = calibrate(data, network.positional, augment, seed)
    run = _Run(network, calibration, as_outcome(outcome), widths, settings, seed, progress, test, where)
    run.timings["trace"] = time.perf_counter() - start
    facts = _asked(model, budget, method, run, constraints, recovery, asked)
    folder = None if workspace is None else Path(workspace)

    stage = load_stage(model, folder, facts) if resume and folder is not None else None
    if stage is None:
        _take_aim(run, budget)
        blocks = settings.takes_blocks(method, budget)
        check_reachable(run.network, budget, run.constraints, blocks=blocks)
        stage = _compress(run, budget, method, facts)
        if folder is not None and recovery is not None:
            save_stage(stage, folder)
    else:
        run.timings = dict(stage.record.timings_s)
    recovered = _recover(run, stage, recovery, data if recovery_data is None else recovery_data, folder, resume)
    final = stage.model if recovered is None else recovered.model
    after = run.accuracy(final, "after recovery") if recovered is not None else None
    measurements = measured_run(
        network,
        stage,
        final,
        recovered,
        after,
        timings=run.timings,
        seed=seed,
        latency=settings.latency,
        device=where,
    )
    return Result(final, stage.plan, stage.effects, measurements, network)


def _take_aim(run: _Run, budget: Budget) -> None:
    """For a budget on a device: the network at the device's prices."""
    with run.step("measure the device"):
        run.aim = aimed(run.network, budget, run.device, run.constraints, progress=run.progress)
    if run.aim is not None:
        run.network, run.constraints = run.aim.network, run.aim.constraints
        run.notes += run.aim.table.notes


def _compress(run: _Run, budget: Budget, method: str, facts: dict[str, Any]) -> Stage:
    """Everything up to repair."""
    network = run.network
    dense = run.accuracy(network.model, "of the dense network")
    plan, effects, planned = _plan(run, budget, method)
    with run.step("remove"):
        bare = remove(network, plan.units)
    with run.step("verify"):
        proof = verify(network, bare, plan.units, run.calibration.fit, seed=run.seed)
    bare_accuracy = run.accuracy(bare, "after removal")
    units = network.select(plan.units)
    audit = run.calibration.audit
    with run.step("repair"):
        repaired = _repair(run, bare, plan, planned)
    with run.step("measure joint effect"):
        removal = joint_effect(network, audit, bare, units, outcome=run.outcome)
        found = joint_effect(network, audit, repaired, units, outcome=run.outcome)
    repaired_accuracy = None if run.settings.repair == "none" else run.accuracy(repaired, "after repair")
    last = repaired_accuracy or bare_accuracy
    joint = JointEffect(
        outcome=found.outcome,
        predicted=plan.predicted,
        measured=found.mean,
        interval=found.interval,
        after_removal=removal.mean,
        images=found.images,
    )
    wrong = None if dense is None else np.flatnonzero(~dense.correct).tolist()
    record = StageRecord(
        asked=facts,
        verify=proof,
        joint_effect=joint,
        accuracy_after=AccuracyAfter(removal=_top1(bare_accuracy), repair=_top1(repaired_accuracy)),
        dense_top1_percent=_top1(dense),
        dense_top1_interval_percent=None if dense is None else dense.interval_percent,
        repaired_top1_interval_percent=None if last is None else last.interval_percent,
        dense_wrong=wrong,
        certificate=certificate(wrong, last),
        refutations=_refute(run, method, joint),
        budgets=[] if run.aim is None else run.aim.records(plan),
        timings_s=run.timings,
        notes=run.notes,
    )
    return Stage(plan, repaired, effects, record)


def _plan(run: _Run, budget: Budget, method: str) -> tuple[Plan, Effects, nn.Module | None]:
    """The plan, the effects of all units, and the network as repaired while planning."""
    few = cut_images(run.calibration.fit, run.settings.effect_images)[0]
    if method not in PLANNERS:
        with run.step("estimate"):
            images = run.calibration.fit if method in (CURVES, *CRITERIA) else few
            effects = estimate(
                run.network, images, method=method, outcome=run.outcome, seed=run.seed, progress=run.progress
            )
        with run.step("allocate"):
            plan = _allocated(run, effects, budget)
        return plan, effects, None
    rounds = prune_in_rounds(
        run.network,
        run.calibration,
        budget,
        outcome=run.outcome,
        constraints=run.constraints,
        planner=PLANNERS[method](),
        views=run.settings.views,
        repairing=run.settings.repair in REFITTING,
        seed=run.seed,
        progress=run.progress,
        clock=run.step,
        fit=run.aim,
        blocks=run.settings.takes_blocks(method, budget),
    )
    run.notes += rounds.notes
    with run.step("estimate single effects"):
        effects = estimate(run.network, few, outcome=run.outcome, seed=run.seed, progress=run.progress)
    return rounds.plan, replace(effects, curves=rounds.curves), rounds.model


def _allocated(run: _Run, effects: Effects, budget: Budget) -> Plan:
    """By the effects alone, or until the device confirms the plan."""

    def planned(network: Network, target: Budget, constraints: Constraints | None) -> Plan:
        return allocate(network, effects, target, allocation=run.settings.allocation, constraints=constraints)

    if run.aim is None:
        return planned(run.network, budget, run.constraints)
    return run.aim(planned, budget)


def _repair(run: _Run, pruned: nn.Module, plan: Plan, refitted: nn.Module | None) -> nn.Module:
    """Repairs as asked; `refitted` is the network as a method in rounds has already refitted it."""
    if run.settings.repair == "none":
        return pruned
    if run.settings.repair == "refit" and refitted is not None:
        return refitted
    asked: dict[str, Any] = {"outcome": run.outcome, "progress": run.progress}
    views = run.calibration.views(range(1_000, 1_000 + run.settings.views))
    if run.settings.repair == "batch-norm":
        return reestimate_batch_norm(pruned, views, run.network.positional)
    if run.settings.repair == "constants":
        return repair_constants(run.network, pruned, plan.units, views, **asked)
    if refitted is None:
        refitted = repair(run.network, pruned, plan.units, views, seed=run.seed, **asked)
    if run.settings.repair == "refit":
        return refitted
    others = run.calibration.views(range(UNSEEN, UNSEEN + run.settings.views))
    return reconstruct(run.network, refitted, plan.units, others, seed=run.seed, **asked)


def _refute(run: _Run, method: str, joint: JointEffect) -> list[Refutation]:
    """Units are judged again as they were for the plan; those of the methods that plan by curves by their effects."""
    if not run.settings.refute:
        return []
    if sum(map(len, run.calibration.audit)) < FEWEST_TO_REFUTE:
        run.notes.append(
            f"Nothing was tried to refute the effects: fewer than {FEWEST_TO_REFUTE} of the calibration images are "
            "kept apart; give more of them."
        )
        return []
    name = "exact" if method in (*PLANNERS, CURVES) else method

    def judge(network: Network, batches: Sequence[Batch], units: Sequence[str]) -> Effects:
        asked = None if name in CRITERIA else units
        return estimate(network, batches, method=name, outcome=run.outcome, units=asked, seed=run.seed).only(units)

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


def _recover(
    run: _Run, stage: Stage, recovery: Recovery | None, data: Any, folder: Path | None, resume: bool
) -> RecoveryResult | None:
    if recovery is None:
        return None
    with run.step("recover"):
        return recover(
            State(run.network, stage.model, run.network.select(stage.plan.units)),
            data,
            recovery,
            positional=run.network.positional,
            seed=run.seed,
            checkpoint=None if folder is None else folder / CHECKPOINT,
            resume=resume and folder is not None and (folder / CHECKPOINT).exists(),
            progress=run.progress,
        )


def _asked(
    model: nn.Module,
    budget: Budget,
    method: str,
    run: _Run,
    constraints: Constraints,
    recovery: Recovery | None,
    more: dict[str, Any] | None,
) -> dict[str, Any]:
    return {
        "model": type(model).__name__,
        "budget": str(budget),
        "method": method,
        "outcome": run.outcome.name,
        "calibration_images": run.calibration.images,
        "repair": run.settings.repair,
        "allocation": run.settings.allocation,
        "blocks": run.settings.takes_blocks(method, budget),
        "ignore": list(constraints.ignore),
        "constraints": replace(constraints, ignore=()).as_dict(),
        "recovery": None if recovery is None else recovery.model_dump(mode="json"),
        "device": None if run.device is None else run.device.name,
        "seed": run.seed,
        **(more or {}),
    }


def _top1(measured: Accuracy | None) -> float | None:
    return None if measured is None else measured.top1_percent
