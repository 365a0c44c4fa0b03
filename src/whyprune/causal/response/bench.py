"""`Bench`: images on which a changed network is compared with itself as it is."""

from collections.abc import Sequence

from torch import Tensor

from whyprune.data.batches import Batch
from whyprune.effects.outcomes import Outcome
from whyprune.structure.replay import Replay


class Bench:
    """Harm beyond that of a network as it is.

    Attributes:
        replay: the network as it is.
        batches: the images.
    """

    def __init__(self, replay: Replay, dense: Replay, batches: Sequence[Batch], outcome: Outcome) -> None:
        """Runs both networks once on all images; the outcome is fitted already."""
        self.replay, self.batches = replay, batches
        self._outcome = outcome
        self._targets = [dense.logits(batch) for batch in batches]
        self._plain = [self._of(k, replay.logits(batch)) for k, batch in enumerate(batches)]

    def harm(self, index: int, logits: Tensor) -> Tensor:
        """Individual effects on the images of one batch, (B,), from the changed network's logits on them."""
        return self._of(index, logits) - self._plain[index]

    def _of(self, index: int, logits: Tensor) -> Tensor:
        return self._outcome(logits, self._targets[index], self.batches[index].labels)
