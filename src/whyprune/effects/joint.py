"""The joint effect of a whole set of removals, measured on the real network."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from whyprune.data.batches import Batch, sample_word
from whyprune.effects.each_output import each_output
from whyprune.effects.outcomes import Outcome, judged
from whyprune.effects.scale import unknowing
from whyprune.effects.verdict import level, reference_harm, said_of
from whyprune.errors import InputError
from whyprune.results import Level
from whyprune.structure.copies import duplicate
from whyprune.structure.entry import entered
from whyprune.structure.network import Network
from whyprune.structure.replay import Replay
from whyprune.structure.state import State


@dataclass(frozen=True)
class Joint:
    """E[Y | the network lacks S] - E[Y], with a 95% t-interval over images, and what it is held against.

    Attributes:
        outcome: what harm is.
        mean: over images, in the outcome's own units.
        standard_error: of the mean.
        images: how many.
        another: the harm of the dense network's answer for another image, in the same units.
        constant: the harm of the mean of its answers.
        untaught: the harm of the network with all parameters at zero, where that is less.
        by_output: where several outputs count by `OutputShift`, each one's harm over its own variance.
    """

    outcome: str
    mean: float
    standard_error: float
    images: int
    another: float | None = None
    constant: float | None = None
    untaught: float | None = None
    by_output: Mapping[str, float] = field(default_factory=dict)

    @property
    def interval(self) -> tuple[float, float]:
        """95% t-interval."""
        half = float(stats.t.ppf(0.975, max(self.images - 1, 1))) * self.standard_error
        return self.mean - half, self.mean + half

    @property
    def scale(self) -> float | None:
        """0 for the same function, 1 for as far as another image's answer; None where the outcome cannot tell."""
        if self.another is None or reference_harm(self.another, self.constant, self.untaught) is None:
            return None
        return self.mean / self.another

    @property
    def level(self) -> Level | None:
        """How much the function changed: `hardly changed`, `changed`, `much changed` or `lost`."""
        return level(self.mean, self.another, self.constant, self.untaught)

    @property
    def sentence(self) -> str:
        """What the number means."""
        return said_of(self.mean, self.another, self.constant, self.untaught)


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
        word = sample_word(batches[0]) if batches else "samples"
        raise InputError(f"at least 2 {word} are needed to measure a joint effect with an interval")
    dense, small = Replay(state.network), Replay.of(state)
    measured = fitted(asked, dense, batches if reference is None else entered(reference, state.network))
    harms, targets, given = [], [], []
    for batch in batches:
        targets.append(target := dense.logits(batch))
        given.append(answer := small.logits(batch))
        harm = measured(answer, target, batch.labels) - measured(target, target, batch.labels)
        harms.append(harm.double().numpy())
    values = np.concatenate(harms)
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    other = unknowing(measured, batches, targets, _untaught(state.network, batches))
    return Joint(
        measured.name,
        float(values.mean()),
        error,
        len(values),
        other.another,
        other.constant,
        other.untaught,
        each_output(measured, given, targets),
    )


def _untaught(network: Network, batches: Iterable[Batch]) -> list[Tensor] | None:
    """Rows of the network with all parameters at zero; None where its code does not run on zeros."""
    model = duplicate(network.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    try:
        replay = Replay(network, model)
        return [replay.logits(batch) for batch in batches]
    except RuntimeError:
        return None


def fitted(outcome: Outcome, dense: Replay, batches: Iterable[Batch]) -> Outcome:
    """An outcome of rows (see `judged`) with what it must know of the dense network."""
    return outcome.fit(torch.cat([dense.logits(b) for b in batches]))
