"""`activation-mean`: how large a unit's activations are on average, as a scorer of one's own."""

from collections.abc import Sequence

import numpy as np

from whyprune.causal.fitted.summaries import summaries
from whyprune.data.batches import Batch, cut_images
from whyprune.effects.effects import Effects, from_scores
from whyprune.scoring.contract import Question, scorer
from whyprune.structure.state import State


@scorer(
    "activation-mean",
    kind="criterion",
    summary="mean absolute activation, as a unit's readers see it",
    estimand="score",
    cost="a forward pass per image",
    guarantee="none; blind to what readers do with it",
    labels="no",
)
def activation_mean(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Higher means that more of the unit is there to be missed."""
    units = state.units if question.units is None else state.select(question.units)
    images = batches if question.forward_passes is None else cut_images(batches, int(question.forward_passes))[0]
    seen = np.abs(summaries(state, images, units=units))
    return from_scores(units, seen.mean(axis=0), method="activation-mean", samples=len(seen), forward_passes=len(seen))
