"""Interventional risk: what replacing a unit by its best constant costs, to second order.

Asiaee, arXiv 2602.24266 (its abstract: pruning as a search for approximate causal abstractions; a second-order closed
form of the risk of replacing a unit by a constant or folding it; under uniform curvature the score is the variance of
the activation). [I] The formulas are ours, in the spirit of it: with T and G of `sensitivity`, c* = argmin_c of the
second-order effect, and the score is that effect at c*: mean (G c* - T)² / scale for `LogitShift`; for an outcome with
a gradient, E[Gc* - T] + E[(Gc* - T)²] / 2.

It estimates the single effect under the intervention `closed-form`, and shares all
limits of `gradient`: local, and blind to what other units carry. c* is fitted on the same images (one number per
unit). The constants cost nothing at inference: `repair.constants` folds them into the next layer's bias.
"""

from collections.abc import Sequence

from whyprune.causal.gradient.estimator import gradient_effects
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.scoring.contract import Question, scorer
from whyprune.structure.state import State


@scorer(
    "interventional-risk",
    kind="estimator",
    summary="second-order effect of replacing a unit by its closed-form constant",
    estimand="single effect under `closed-form`, approximate",
    cost="two times `gradient`",
    guarantee="that of `gradient`",
    paper="Asiaee, arXiv 2602.24266",
    gradients=True,
    interventions=("closed-form",),
    individual=True,
    scaling="invariant",
    duplicates="alike",
)
def interventional_risk(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Second-order effect of replacing each unit by its closed-form constant."""
    return gradient_effects(state, batches, question, method="interventional-risk")
