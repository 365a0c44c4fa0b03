"""What every estimator is question, and what it answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.effects.outcomes import Outcome
from whyprune.structure.network import Network


@dataclass(frozen=True)
class Question:
    """What an estimator is asked for.

    Attributes:
        outcome: what harm is; None for `LogitShift`.
        intervention: the value v of do(unit := v).
        units: names of the units to judge; None for all.
        per_image: keep individual effects, where the estimator has them.
        forward_passes: most dense forward passes of one image to spend, all in all; None for the estimator's own
            default. Estimators that run interventions keep to it, up to one round of their work.
        rate: probability with which other units are gone, for `context` effects; None for the default.
        seed: of everything drawn.
        progress: show a progress bar.
    """

    outcome: Outcome | str | None = None
    intervention: str = "zero"
    units: tuple[str, ...] | None = None
    per_image: bool = False
    forward_passes: float | None = None
    rate: float | None = None
    seed: int = 0
    progress: bool = False


class Estimator(Protocol):
    """From a network, images and a question to effects: higher means more harm when the unit goes."""

    def __call__(self, network: Network, batches: Sequence[Batch], question: Question, /) -> Effects:
        """Estimates effects of units.

        Raises:
            InputError: data, names or a budget that cannot be used.
        """
        ...
