"""First-order Taylor: |sum over places of gradient x activation| where a unit is read.

Molchanov et al., CVPR 2019. The effect of do(u := 0) to first order is -g·a. [P] absolute value per image,
averaged over images. Where several layers read a unit, their terms are added up before the absolute value; what one
term does to a unit further down the same stream counts in both (ours). The outcome's gradient vanishes where the
network is unchanged for `LogitShift` and `PredictionChange`, and may for a function; for these the score is
mean |sum_k s_k (dz_k/da · a)| over random signs s: the first-order change of the centred logits z (ours).
"""

from collections.abc import Iterable
from typing import Any

from whyprune.effects.effects import Effects, from_scores
from whyprune.effects.outcomes import Outcome, as_outcome
from whyprune.interventions.sensitivity import sensitivity
from whyprune.structure.network import Network
from whyprune.structure.replay import Replay


def taylor(network: Network, data: Iterable[Any], *, outcome: Outcome | str | None = None, seed: int = 0) -> Effects:
    """First-order scores of every unit; one backward pass per batch and probe.

    Args:
        network: a traced model.
        data: batches; labels only if the outcome needs them.
        outcome: what harm is (default `LogitShift`, label-free).
        seed: of the random signs.

    Raises:
        InputError: there is no data.
    """
    found = sensitivity(Replay(network), data, as_outcome(outcome), seed)
    scores = found.products.double().abs().mean(dim=(0, 2)).numpy()
    return from_scores(
        network.units, scores, method="taylor", samples=found.images, forward_passes=found.forward_passes
    )
