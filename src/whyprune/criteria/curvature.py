"""What criteria of second order need: scalars whose squared derivatives are the curvature of an outcome.

At a trained network the Gauss-Newton matrix stands for the Hessian (LeCun et al., NIPS 1990; for cross-entropy the
empirical Fisher matrix): the mean over images of g g' for the gradient g of the outcome, where it has one, and of
random directions of the rows, where it is a squared distance.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from whyprune.data.batches import Batch
from whyprune.effects.outcomes import Outcome, Quadratic, centred
from whyprune.effects.output_shift import OutputShift
from whyprune.errors import InputError
from whyprune.interventions.sensitivity import PROBES, is_differentiable, signs
from whyprune.structure.replay import Replay
from whyprune.structure.state import State


def ready(state: State, outcome: Outcome, batches: Sequence[Batch]) -> tuple[Outcome, float]:
    """The outcome as `scalars` needs it, and what that cost in forward passes.

    Raises:
        InputError: there is no data.
    """
    if not batches:
        raise InputError("there is no data: second derivatives need images")
    if not isinstance(outcome, OutputShift):
        return outcome, 0.0
    dense = Replay(state.network)
    return outcome.fit(torch.cat([dense.logits(b) for b in batches])), float(sum(map(len, batches)))


def probes_of(outcome: Outcome) -> int:
    """How many scalars an outcome has."""
    return 1 if is_differentiable(outcome) else PROBES


def scalars(outcome: Outcome, rows: Tensor, labels: Tensor | None, generator: torch.Generator) -> Iterator[Tensor]:
    """Scalars of a batch, whose squared derivatives, averaged over scalars and summed over images, are the curvature.

    Args:
        outcome: as `ready` returns it.
        rows: (B, F), with a graph behind them.
        labels: for outcomes that need them.
        generator: of the random directions.
    """
    if is_differentiable(outcome):
        yield outcome(rows, rows.detach(), labels).sum()
        return
    z = outcome.directions(rows) if isinstance(outcome, Quadratic) else centred(rows)
    for sign in signs(PROBES, rows, generator):
        yield (z * sign).sum()
