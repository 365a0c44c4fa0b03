"""Why a predicted and a measured joint effect disagree: what was predicted is measured where it was predicted."""

from whyprune.allocation.allocate import chosen_allocator, facts_of
from whyprune.data.batches import cut_images
from whyprune.effects.joint import Joint, joint_effect
from whyprune.pipeline.run import Run
from whyprune.repair.registry import repair_named
from whyprune.results import OffBy
from whyprune.structure.plan import Plan
from whyprune.structure.state import State


def why_off(run: Run, plan: Plan, found: Joint, bare: State, mended: State, *, curves: bool) -> OffBy | None:
    """The reason; None where the prediction lies inside the interval of the measurement, or there is none.

    Args:
        run: the samples that the plan was made from, and the outcome.
        plan: with its prediction.
        found: the joint effect as measured on samples kept apart.
        bare: the network after the removal alone.
        mended: after repair.
        curves: whether response curves predicted; else effects of units, or the allocation measured whole plans.
    """
    if plan.predicted is None or _within(plan.predicted, found):
        return None
    allocation = run.method.allocation
    if allocation is not None and facts_of(chosen_allocator(allocation)).needs == "evaluator":
        return "search"
    between = run.method.schedule.in_rounds and repair_named(run.method.repair).between_rounds
    refitted = curves or between  # else the prediction is of the removal alone
    if refitted and mended.model is bare.model:
        return "no repair"
    like = mended if refitted else bare
    there = joint_effect(like, cut_images(run.calibration.planning, found.images)[0], outcome=run.outcome)
    if _within(plan.predicted, there):
        return "samples" if like is mended or mended.model is bare.model else "repair"
    parts = plan.removed_per_group() if refitted else plan.units
    return "sum" if len(parts) > 1 else "curve"


def _within(predicted: float, measured: Joint) -> bool:
    low, high = measured.interval
    return low <= predicted <= high
