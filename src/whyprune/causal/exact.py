"""Exact interventional effects: every unit is intervened on, on every image, on the real network.

The network is a deterministic structural causal model, so E[Y | do(u := v)] - E[Y] needs no identification: it is
measured, paired on the same images. What makes it affordable is in `suffix`.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects, from_samples
from whyprune.effects.outcomes import Outcome, judged
from whyprune.errors import InputError
from whyprune.interventions.suffix import (
    chosen_units,
    edits,
    on_batch,
    plain_cost,
    rebatched,
    reference,
    relative_cost,
    suffixes,
)
from whyprune.interventions.values import Intervention, checked, fit_cost
from whyprune.progress import Progress
from whyprune.scoring.contract import ALL_INTERVENTIONS, Question, scorer
from whyprune.scoring.paid import paid_images
from whyprune.structure.entry import entered
from whyprune.structure.network import Network
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.units import Unit

__all__ = ["chosen_units", "edits", "exact", "exact_effects", "relative_cost"]


def exact_effects(
    start: Network | State,
    data: Iterable[object],
    *,
    outcome: Outcome | str | None = None,
    intervention: str | None = None,
    units: Sequence[Unit | str] | None = None,
    per_image: bool = False,
    progress: bool = False,
) -> Effects:
    """E[Y | do(u := v)] - E[Y] of every unit, with standard errors and 95% intervals.

    Args:
        start: a traced model, or a state of it: effects are then conditional on what is gone.
        data: batches; labels only if the outcome needs them.
        outcome: what harm is (default `LogitShift`, of other outputs `OutputShift`).
        intervention: `zero` (default), `mean`, `optimal`, `closed-form`, `resample` or `carried`.
        units: which units (default: all that are still there).
        per_image: keep individual effects.
        progress: show a progress bar.

    Raises:
        InputError: no data, fewer than two images, or labels missing for the outcome.
    """
    state, asked = judged(start, outcome)
    network, replay = state.network, Replay.of(state)
    dense = reference(state, replay)
    chosen = chosen_units(state, units)
    plans = suffixes(replay, chosen)
    batches = list(rebatched(entered(data, network), replay, plans))
    if not batches:
        raise InputError("there is no data: effects are measured on images")
    measured = asked.fit(torch.cat([dense.logits(b) for b in batches]))
    value = Intervention(checked(intervention)).fit(replay, batches, measured, chosen, progress=progress)
    per_batch = []
    with Progress(progress) as bars:
        bar = bars.add("Measuring effects", len(batches) * len(chosen))
        for batch in batches:
            blocks = []
            for block in on_batch(replay, dense, batch, plans, measured, value):
                blocks.append(block)
                bars.advance(bar, len(block))
            per_batch.append(np.concatenate(blocks))
    return from_samples(
        chosen,
        np.concatenate(per_batch, axis=1),
        keep_images=per_image,
        outcome=measured.name,
        intervention=value.value,
        estimand="conditional" if state.removed else "single",
        method="exact",
        given=tuple(u.name for u in state.removed),
        forward_passes_per_unit=(share := relative_cost(network, plans)),
        forward_passes=(plain_cost(state) + share * len(chosen)) * sum(map(len, batches)) + value.forward_passes,
    )


def affordable(state: State, units: Sequence[Unit], batches: Sequence[Batch], question: Question) -> Sequence[Batch]:
    """As many of the first images as the question's budget pays for, all of these units intervened on on each.

    Raises:
        InputError: it does not pay for two images.
    """
    if question.forward_passes is None:
        return batches
    each = relative_cost(state.network, suffixes(Replay.of(state), units)) * len(units)
    per_image = plain_cost(state) + each + fit_cost(checked(question.intervention), each)
    work = f"exact effects of {len(units)} units on"
    return paid_images(batches, question.forward_passes, per_image, fewest=2, work=work)


@scorer(
    "exact",
    kind="estimator",
    summary="do(unit := v) for every unit on every image",
    estimand="single effect",
    cost="one partial forward pass per unit and image, without what lies in front of the unit",
    guarantee="unbiased over images; 95% interval that allows for skewed effects; no approximation of the network",
    interventions=ALL_INTERVENTIONS,
    individual=True,
    scaling="invariant",
    duplicates="alike",
)
def exact(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """As many of the first images as the budget allows, all units on each."""
    batches = affordable(state, chosen_units(state, question.units), batches, question)
    return exact_effects(
        state,
        batches,
        outcome=question.outcome,
        intervention=question.intervention,
        units=question.units,
        per_image=question.per_image,
        progress=question.progress,
    )
