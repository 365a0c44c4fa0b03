"""Exact interventional effects: every unit is intervened on, on every image, on the real network.

The network is a deterministic structural causal model, so E[Y | do(u := v)] - E[Y] needs no identification: it is
measured, paired on the same images. What makes it affordable is in `suffix`.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn

from whyprune.data.batches import Batch, as_batches, cut_images
from whyprune.effects.effects import Effects, from_samples
from whyprune.effects.outcomes import Outcome, as_outcome
from whyprune.errors import InputError
from whyprune.interventions.suffix import chosen_units, edits, on_batch, rebatched, relative_cost, rows, suffixes
from whyprune.interventions.values import Intervention, checked, fit_cost
from whyprune.progress import Progress
from whyprune.scoring.contract import Question
from whyprune.structure.network import Network
from whyprune.structure.replay import Replay
from whyprune.structure.units import Unit

__all__ = ["chosen_units", "edits", "exact", "exact_effects", "relative_cost", "rows"]


def exact_effects(
    network: Network,
    data: Iterable[object],
    *,
    outcome: Outcome | str | None = None,
    intervention: str = "zero",
    units: Sequence[Unit | str] | None = None,
    model: nn.Module | None = None,
    removed: Sequence[Unit] = (),
    per_image: bool = False,
    progress: bool = False,
) -> Effects:
    """E[Y | do(u := v)] - E[Y] of every unit, with standard errors and 95% intervals.

    Args:
        network: a traced model.
        data: batches; labels only if the outcome needs them.
        outcome: what harm is (default `LogitShift`).
        intervention: `zero`, `mean`, `optimal`, `closed-form`, `resample` or `carried`.
        units: which units (default: all that are not removed).
        model: the network cut by `removed` (and repaired, perhaps): effects are then conditional on that removal.
        removed: the units that `model` lacks.
        per_image: keep individual effects.
        progress: show a progress bar.

    Raises:
        InputError: no data, fewer than two images, or labels missing for the outcome.
    """
    replay = Replay(network, model, removed)
    dense = replay if model is None else Replay(network)
    chosen = chosen_units(network, units, removed)
    plans = suffixes(replay, chosen)
    batches = list(rebatched(as_batches(data, network.positional), replay, plans))
    if not batches:
        raise InputError("there is no data: effects are measured on images")
    measured = as_outcome(outcome).fit(torch.cat([dense.logits(b) for b in batches]))
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
        estimand="conditional" if removed else "single",
        method="exact",
        given=tuple(u.name for u in removed),
        forward_passes_per_unit=(share := relative_cost(network, plans)),
        forward_passes=(1 + share * len(chosen)) * sum(map(len, batches)) + value.forward_passes,
    )


def exact(network: Network, batches: Sequence[Batch], question: Question) -> Effects:
    """The estimator `exact`: as many of the first images as the budget allows, all units on each."""
    if question.forward_passes is not None:
        chosen = chosen_units(network, question.units)
        each = relative_cost(network, suffixes(Replay(network), chosen)) * len(chosen)
        per_image = 1 + each + fit_cost(checked(question.intervention), each)
        batches = cut_images(batches, int(question.forward_passes // per_image))[0]
        if sum(map(len, batches)) < 2:
            raise InputError(
                f"{question.forward_passes:g} forward passes do not pay for exact effects of {len(chosen)} units on 2 "
                f"images: give at least {2 * per_image:.0f}"
            )
    return exact_effects(
        network,
        batches,
        outcome=question.outcome,
        intervention=question.intervention,
        units=question.units,
        per_image=question.per_image,
        progress=question.progress,
    )
