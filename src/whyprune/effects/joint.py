"""The joint effect of a whole set of removals, measured on the real network."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats

from whyprune.data.batches import Batch
from whyprune.effects.outcomes import Outcome, judged
from whyprune.errors import InputError
from whyprune.structure.entry import entered
from whyprune.structure.replay import Replay
from whyprune.structure.state import State


@dataclass(frozen=True)
class Joint:
    """E[Y | the network lacks S] - E[Y], with a 95% t-interval over images."""

    outcome: str
    mean: float
    standard_error: float
    images: int

    @property
    def interval(self) -> tuple[float, float]:
        """95% t-interval."""
        half = float(stats.t.ppf(0.975, max(self.images - 1, 1))) * self.standard_error
        return self.mean - half, self.mean + half


def joint_effect(
    state: State,
    data: Iterable[Any],
    *,
    outcome: Outcome | str | None = None,
    reference: Iterable[Any] | None = None,
) -> Joint:
    """Measures the joint effect of what a state lacks, in its module as it stands (repaired or not).

    Args:
        state: the pruned network.
        data: images to measure on; for an honest number, images the plan was not made from.
        outcome: what harm is (default `LogitShift`, or `OutputShift` where the output is no vector of logits).
        reference: images that fix the outcome's scale (default: `data`).

    Raises:
        InputError: fewer than two images.
    """
    state, asked = judged(state, outcome)
    batches = list(entered(data, state.network))
    if sum(map(len, batches)) < 2:
        raise InputError("at least 2 images are needed to measure a joint effect with an interval")
    dense, small = Replay(state.network), Replay.of(state)
    measured = fitted(asked, dense, batches if reference is None else entered(reference, state.network))
    harms = []
    for batch in batches:
        target = dense.logits(batch)
        harm = measured(small.logits(batch), target, batch.labels) - measured(target, target, batch.labels)
        harms.append(harm.double().numpy())
    values = np.concatenate(harms)
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    return Joint(measured.name, float(values.mean()), error, len(values))


def fitted(outcome: Outcome, dense: Replay, batches: Iterable[Batch]) -> Outcome:
    """An outcome of rows (see `judged`) with what it must know of the dense network."""
    return outcome.fit(torch.cat([dense.logits(b) for b in batches]))
