"""The scorer `curves`: response curves of groups and, where blocks may go, effects of bypassing them.

A unit's number is what its group's curve rises by where the unit goes. It ranks units within a group by the order in
which they are eliminated, and groups by how steep their curves are; it is no effect of the unit alone.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from whyprune.causal.response.bypass import FIT_IMAGES as BLOCK_FIT_IMAGES
from whyprune.causal.response.bypass import blocks_left, bypass_effects
from whyprune.causal.response.curves import curve_costs, response_curves
from whyprune.data.batches import Batch, cut_images, split_images
from whyprune.effects.effects import Effects, ResponseCurve
from whyprune.effects.outcomes import as_outcome
from whyprune.errors import InputError
from whyprune.interventions.suffix import chosen_units, plain_cost
from whyprune.scoring.contract import Question, scorer
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.units import Unit

FIT_IMAGES = 512
"""Images for local refits, at most."""
FEWEST = 6
BLOCK = "block"


@scorer(
    "curves",
    kind="curves",
    summary="response curves: what each width of each group does to the outcome, repaired locally",
    estimand="effect of each width of each group",
    cost="per group: one elimination, and a few partial forward passes per image",
    guarantee="each point is a measured effect with its standard error",
    kinds=("width", BLOCK),
    most_images=0,
    judge="exact",
    scaling="invariant",
    duplicates="one-first",
)
def curves(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Curves of the groups of the units asked for, on a third of the images; refits on the others.

    Raises:
        InputError: fewer than six images, or a budget that does not pay for them.
    """
    chosen = chosen_units(state, question.units)
    groups = list(dict.fromkeys(unit.group for unit in chosen))
    fit, measure, cost = _affordable(state, groups, batches, question)
    found = response_curves(
        state,
        cut_images(fit, FIT_IMAGES)[0],
        measure,
        outcome=question.outcome,
        groups=groups,
        seed=question.seed,
        progress=question.progress,
    )
    blocks = _blocks(state, fit, measure, question) if BLOCK in question.kinds else {}
    return Effects(
        units=tuple(unit.name for unit in chosen),
        groups=tuple(unit.group for unit in chosen),
        mean=_rises(chosen, found),
        standard_error=np.full(len(chosen), np.nan),
        samples=sum(map(len, measure)),
        outcome=as_outcome(question.outcome, state.network.outputs).name,
        intervention="",
        estimand="curve",
        method="curves",
        curves=found,
        blocks=blocks,
        given=tuple(unit.name for unit in state.removed),
        forward_passes=cost,
    )


def _blocks(state: State, fit: Sequence[Batch], measure: Sequence[Batch], question: Question) -> dict[str, float]:
    found = bypass_effects(
        state, fit, measure, outcome=question.outcome, seed=question.seed, progress=question.progress
    )
    return {name: block.effect for name, block in found.items()}


def _rises(units: Sequence[Unit], found: Mapping[str, ResponseCurve]) -> np.ndarray:
    """What each unit's curve rises by where it goes; what no curve knows of gets the highest there is."""
    known = {name: rises(curve) for name, curve in found.items()}
    steepest = {name: max(rise.values(), default=0.0) for name, rise in known.items()}
    highest = max(steepest.values(), default=0.0)
    return np.array([known.get(u.group, {}).get(u.name, steepest.get(u.group, highest)) for u in units])


def rises(curve: ResponseCurve) -> dict[str, float]:
    """Unit -> by how much the curve rises where it goes, between measured points in equal parts."""
    steps = np.diff(np.interp(np.arange(len(curve.order) + 1), curve.removed, curve.effect))
    return dict(zip(curve.order, steps.tolist(), strict=True))


@dataclass(frozen=True)
class _Costs:
    """In dense forward passes of one image.

    Attributes:
        measured: per image that is measured on.
        fitted: per image of the refits of curves.
        blocks: how many blocks are bypassed, each with refits of its own.
    """

    measured: float
    fitted: float
    blocks: int

    def of(self, measured: int, fitted: int) -> float:
        """The cost of so many images."""
        own = 2.0 * min(fitted, BLOCK_FIT_IMAGES) + measured
        return self.measured * measured + self.fitted * min(fitted, FIT_IMAGES) + self.blocks * own


def _affordable(
    state: State, groups: Sequence[str], batches: Sequence[Batch], question: Question
) -> tuple[list[Batch], list[Batch], float]:
    """(images for refits, images to measure on, what it costs); as many of the first images as the budget pays for."""
    by_group = curve_costs(Replay.of(state))
    measured = plain_cost(state) + sum(by_group.get(name, 0.0) for name in groups)
    costs = _Costs(measured, 3.0, len(blocks_left(state)) if BLOCK in question.kinds else 0)

    def cost(images: int) -> float:
        fit, measure = split_images(cut_images(batches, images)[0])
        return costs.of(sum(map(len, measure)), sum(map(len, fit)))

    total = sum(map(len, batches))
    budget = question.forward_passes
    if budget is not None and total >= FEWEST:
        if cost(FEWEST) > budget:
            raise InputError(
                f"{budget:g} forward passes do not pay for response curves on {FEWEST} images: give at least "
                f"{cost(FEWEST):.0f}"
            )
        total = bisect_right(range(total + 1), budget, lo=FEWEST, key=cost) - 1
    fit, measure = split_images(cut_images(batches, total)[0])
    return fit, measure, cost(total)
