"""Taylor as control variate: exact effects on every fourth image, Taylor's guess on all, and the guess is corrected.

    tau^ = mean_N(c g) + mean_n(d - c g)        (see `control_variate`)

with d exact effects on n images, and g Taylor's guess on N = 4 n images, among which the n are.

The idea [I]: of Taylor's guess only its part in the variance over images is believed; its bias is measured on the n
images and taken out, so that the result is an effect with an interval, and not a score. It is wrong where guess and
effect have nothing in common from image to image (`diagnostics["explained"]`, the median rho², is near 0): then the
interval is as wide as that of `exact` on the n images, and the guesses were paid for nothing.

g is Taylor's change of the outcome on one image, with its sign (Molchanov et al., CVPR 2019: gradient x activation);
for `LogitShift` and other squares, which have no first order, the square of the first-order change of the outputs.

What `adaptive` does besides: it stops measuring units that are far from the middle, so units have different images.
Here all have the same, drawn before anything is known: no interval is conditional on when the measuring stopped, and
no unit is measured less surely than another. It is for every plan, `adaptive` for which half goes.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from whyprune.causal.adaptive.screen import Laboratory
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.interventions.suffix import chosen_units
from whyprune.scoring.contract import ALL_INTERVENTIONS, Question, scorer
from whyprune.structure.state import State

LEAD = 4.0
"""Images with Taylor's guess for each with exact effects."""
LEAST = 16
"""Exact effects on fewer images say little of the guess: of so many, all are measured."""


@scorer(
    "causal-taylor",
    kind="estimator",
    summary="Taylor's guess on all images, corrected by exact effects on every fourth",
    estimand="single effect",
    cost="a quarter of `exact`, and a few backward passes per image",
    guarantee="unbiased whatever Taylor says, with 95% intervals; narrower than those of as many exact effects where "
    "it is right about which images mind",
    paper="Molchanov et al., CVPR 2019 (Taylor); Cochran, 1977 (control variates); put together here",
    gradients=True,
    interventions=ALL_INTERVENTIONS,
)
def causal_taylor(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Single effects of all units on the same images, as many as the budget pays for."""
    units = chosen_units(state, question.units)
    laboratory = Laboratory(state, batches, units, question, guess=True, lead=LEAD, seed=question.seed)
    laboratory.extend(np.ones(len(units), dtype=bool), max(int(laboratory.images / LEAD), LEAST), 2)
    return replace(laboratory.effects("causal-taylor"), diagnostics={"explained": laboratory.explained()})
