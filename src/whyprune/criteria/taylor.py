"""First-order Taylor: |sum over places of gradient x activation| where a unit is read.

Molchanov et al., CVPR 2019. The effect of do(u := 0) to first order is -g·a. [P] absolute value per image,
averaged over images. Where several layers read a unit, their terms are added up before the absolute value; what one
term does to a unit further down the same stream counts in both (ours). The outcome's gradient vanishes where the
network is unchanged for `LogitShift`, `OutputShift` and `PredictionChange`, and may for a function; for these the score
is mean |sum_k s_k (dz_k/da · a)| over random signs s: the first-order change of the centred logits z (ours).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from whyprune.criteria.answer import scored
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.effects.outcomes import Outcome, as_outcome, judged
from whyprune.effects.output_shift import OutputShift
from whyprune.interventions.sensitivity import PROBES, is_differentiable, sensitivity, sensitivity_cost
from whyprune.interventions.suffix import chosen_units
from whyprune.scoring.contract import Question, scorer
from whyprune.scoring.paid import paid_images
from whyprune.structure.entry import entered
from whyprune.structure.network import Network
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.units import Unit


def taylor(
    start: Network | State,
    data: Iterable[Any],
    *,
    outcome: Outcome | str | None = None,
    units: Sequence[Unit | str] | None = None,
    seed: int = 0,
) -> Effects:
    """First-order scores of every unit; one backward pass per batch and probe.

    Args:
        start: a traced model, or a state of it: scores are then those in the network as it stands.
        data: batches; labels only if the outcome needs them.
        outcome: what harm is (default `LogitShift`, of other outputs `OutputShift`; label-free).
        units: which units (default: all that are there).
        seed: of the random signs.

    Raises:
        InputError: there is no data, or an unknown unit.
    """
    state, asked = judged(start, outcome)
    chosen = chosen_units(state, units)
    batches, passes = list(entered(data, state.network)), 0.0
    if isinstance(asked, OutputShift) and batches:  # its directions have scales
        dense = Replay(state.network)
        asked, passes = asked.fit(torch.cat([dense.logits(b) for b in batches])), float(sum(map(len, batches)))
    found = sensitivity(Replay.of(state), batches, asked, seed)
    scores = found.products.double().abs().mean(dim=(0, 2)).numpy()
    return scored(
        state,
        chosen,
        scores[[state.network.units.index(unit) for unit in chosen]],
        method="taylor",
        samples=found.images,
        forward_passes=found.forward_passes + passes,
    )


@scorer(
    "taylor",
    kind="criterion",
    summary="gradient times activation where a unit is read",
    estimand="score",
    cost="a few backward passes per image",
    guarantee="first order only; no interval",
    paper="Molchanov et al., CVPR 2019",
    gradients=True,
    causal="causal-taylor",
    most_images=0,
    scaling="invariant",
    duplicates="alike",
)
def taylor_scores(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """First-order scores on as many of the first images as the budget pays for."""
    asked = as_outcome(question.outcome, state.network.outputs)
    each = sensitivity_cost(1 if is_differentiable(asked) else PROBES) + isinstance(asked, OutputShift)
    batches = paid_images(batches, question.forward_passes, each)
    return taylor(state, batches, outcome=question.outcome, units=question.units, seed=question.seed)
