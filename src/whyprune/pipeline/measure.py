"""Puts together what a run measured: cost, accuracy, latency, machine."""

from collections.abc import Sequence

import numpy as np
from torch import nn

from whyprune.data.batches import sample_word
from whyprune.devices import Accuracy, Device, TorchDevice, latency_ratio, library_versions, machine_state, shown
from whyprune.devices.inputs import inputs_for
from whyprune.effects.certificate import certified_drop
from whyprune.effects.joint import joint_effect
from whyprune.effects.verdict import verdict
from whyprune.pipeline.run import Run
from whyprune.pipeline.stage import Stage
from whyprune.recovery import RecoveryResult
from whyprune.results import (
    Certificate,
    GroupSummary,
    LatencyMs,
    LatencyRatio,
    NetworkMeasurement,
    RefusalSummary,
    RunResult,
)
from whyprune.structure.network import Network
from whyprune.structure.plan import Plan
from whyprune.structure.state import State
from whyprune.structure.units import removed_indices

LATENCY_SECONDS = 6.0
LATENCY_REPEATS = 200


def measured_run(run: Run, stage: Stage, recovered: RecoveryResult | None) -> tuple[RunResult, nn.Module]:
    """The record of a finished run, and the network that it ends with.

    Args:
        run: what was asked for.
        stage: the network after removal and repair.
        recovered: after fine-tuning; None where there was none.
    """
    network, seed, latency = run.network, run.seed, run.settings.latency
    final = stage.model if recovered is None else recovered.model
    after = run.accuracy(final, "after recovery") if recovered is not None else None
    record, plan = stage.record, stage.plan
    dense_cost = run.dense.cost()
    device = run.device or TorchDevice(repeats=LATENCY_REPEATS, seconds=LATENCY_SECONDS, threads=1)
    times, ratio = _latency(run.dense, final, device, seed) if latency else ({}, None)
    effect = None if recovered is None or run.untrained else _after_recovery(run, plan, final)
    chance = record.chance_percent if after is None else after.chance_percent
    accuracy_after = record.accuracy_after.model_copy(
        update={"recovery": None if after is None else after.top1_percent}
    )
    top1 = [v for v in (accuracy_after.recovery, accuracy_after.repair, accuracy_after.removal) if v is not None]
    reached, samples = top1[0] if top1 else None, sample_word(run.calibration.planning[0])
    measured = RunResult(
        samples=samples,
        asked=record.asked,
        dense=NetworkMeasurement(
            top1_percent=record.dense_top1_percent,
            top1_interval_percent=record.dense_top1_interval_percent,
            chance_percent=record.chance_percent,
            macs=dense_cost.macs,
            params=dense_cost.params,
            bytes=dense_cost.bytes,
            latency_p50_ms=_p50(times.get("dense")),
            latency=times.get("dense"),
        ),
        pruned=NetworkMeasurement(
            top1_percent=reached,
            chance_percent=chance,
            top1_interval_percent=record.repaired_top1_interval_percent if after is None else after.interval_percent,
            macs=plan.macs,
            params=plan.params,
            bytes=plan.bytes,
            latency_p50_ms=_p50(times.get("pruned")),
            latency=times.get("pruned"),
        ),
        latency_ratio=ratio,
        latency_device=shown(device) if latency else None,
        budgets=record.budgets,
        accuracy_after=accuracy_after,
        joint_effect=record.joint_effect,
        effect_after_recovery=effect,
        verdict=verdict(
            record.joint_effect,
            dense_percent=record.dense_top1_percent,
            pruned_percent=reached,
            chance_percent=chance,
            recovered=recovered is not None,
            untrained=run.untrained,
            after_recovery=effect,
            calibration=run.calibration.images,
            samples=samples,
        ),
        verify=record.verify,
        certificate=record.certificate if after is None else certificate(record.dense_wrong, after),
        refutations=record.refutations,
        groups=group_summaries(network, plan, run.dense),
        blocks=list(plan.blocks),
        refusals=[RefusalSummary(where=r.where, reason=r.reason, channels=r.channels) for r in network.refusals],
        training=run.trained,
        recovery=[] if recovered is None else list(recovered.history),
        normalization=record.asked.get("normalization"),
        seeds={"seed": seed},
        versions=library_versions(),
        machine=machine_state(),
        timings_s=dict(run.timings),
        notes=record.notes,
    )
    return measured, final


def _after_recovery(run: Run, plan: Plan, final: nn.Module) -> float:
    """The joint effect of the fine-tuned network, on the samples kept apart from planning."""
    state = State(run.network, final, run.network.select(plan.units), likeness=False)
    with run.step("measure joint effect"):
        return joint_effect(state, run.calibration.audit, outcome=run.outcome).mean


def certificate(dense_wrong: Sequence[int] | None, pruned: Accuracy | None) -> Certificate | None:
    """How much accuracy drops at most, on the test images, which took part in no decision; None without any."""
    if dense_wrong is None or pruned is None:
        return None
    dense_right = np.ones(pruned.images, dtype=bool)
    dense_right[list(dense_wrong)] = False
    return certified_drop(dense_right, pruned.correct)


def group_summaries(network: Network, plan: Plan | None = None, dense: Network | None = None) -> list[GroupSummary]:
    """Widths and MACs per group; MACs of a group are those of the layers that its channels are written or read by.

    Args:
        network: that the plan is for.
        plan: what goes; None for nothing.
        dense: the network before it was widened, with the same groups; None where it was not.
    """
    dense = dense or network
    gone = {} if plan is None else plan.removed_per_group()
    units = () if plan is None else network.select(plan.units)
    sizes = {axis: len(indices) for axis, indices in removed_indices(units).items()}
    summaries = []
    held = {group.name: group for group in dense.groups}
    for group in network.groups:
        before = held.get(group.name, group)
        axes = {(parameter, axis) for parameter, axis, _ in group.axes}
        summaries.append(
            GroupSummary(
                name=group.name,
                width=len(before.units),
                kept=len(group.units) - gone.get(group.name, 0),
                removable=len(before.units),
                axes=[f"{parameter}[{axis}]" for parameter, axis, _ in group.axes],
                macs_before=dense.cost.macs({}, axes),
                macs_after=network.cost.macs(sizes, axes),
            )
        )
    return summaries


def _latency(
    network: Network, final: nn.Module, device: Device, seed: int
) -> tuple[dict[str, LatencyMs], LatencyRatio | None]:
    measured = device({"dense": network.model, "pruned": final}, inputs_for(device, network.example))
    if any(len(measured.samples_ms.get(name, ())) < 2 for name in ("dense", "pruned")):
        return measured.latency, None  # predicted, or summed up elsewhere: no rounds to draw an interval from
    dense_ms, pruned_ms = measured.calm_ms("dense", "pruned")
    return measured.latency, latency_ratio(dense_ms, pruned_ms, seed)


def _p50(latency: LatencyMs | None) -> float | None:
    return None if latency is None else latency.p50_ms
