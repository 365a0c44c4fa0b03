"""`Bench`: images on which a changed network is compared with itself as it is."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from whyprune.data.batches import chunked
from whyprune.effects.joint import fitted
from whyprune.effects.outcomes import Outcome, judged
from whyprune.structure.entry import entered
from whyprune.structure.replay import Replay
from whyprune.structure.state import State

CHUNK = 128


class Bench:
    """Harm beyond that of a network as it is.

    Attributes:
        state: the network as it is.
        replay: the same, as it runs.
        dense: the original, to which the outcome compares.
        batches: the images, in batches of at most `CHUNK`.
    """

    def __init__(self, state: State, measure: Iterable[Any], outcome: Outcome | str | None) -> None:
        """Runs both networks once on all images.

        Args:
            state: the network as it is.
            measure: batches to measure on.
            outcome: what harm is, not fitted yet.
        """
        state, asked = judged(state, outcome)
        self.state, self.replay, self.dense = state, Replay.of(state), Replay(state.network)
        self.batches = chunked(entered(measure, state.network), CHUNK)
        self._outcome = fitted(asked, self.dense, self.batches)
        self._targets = [self.dense.logits(batch) for batch in self.batches]
        self._plain = [self._of(k, self.replay.logits(batch)) for k, batch in enumerate(self.batches)]

    def harm(self, index: int, logits: Tensor) -> Tensor:
        """Individual effects on the images of one batch, (B,), from the changed network's logits on them."""
        return self._of(index, logits) - self._plain[index]

    def _of(self, index: int, logits: Tensor) -> Tensor:
        return self._outcome(logits, self._targets[index], self.batches[index].labels)
