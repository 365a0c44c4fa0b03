"""`MeasuredErrors`: the errors of whole plans on labelled images, after a mending that is handed in.

Which images these are, and how networks are mended, is the caller's: `pipeline/evaluators.py` has the kinds by name.
"""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from whyprune.allocation.evaluator import MeasuredPlans
from whyprune.data.batches import Batch
from whyprune.data.outputs import logits_of
from whyprune.devices.evaluation import call, device_of, evaluating
from whyprune.errors import DivergedError, InputError
from whyprune.structure.state import State


@dataclass(frozen=True)
class Mending:
    """What is done to a network as cut before it is measured.

    Attributes:
        name: tells it from any other, its numbers included.
        apply: (state as cut, images) -> the state to measure.
        passes: what one image costs, in passes: (of the dense network, of the pruned one).
    """

    name: str
    apply: Callable[[State, Sequence[Batch]], State]
    passes: tuple[float, float]


@dataclass
class MeasuredErrors(MeasuredPlans):
    """The error of the network that is left: (wrong + c / (1 + c)) / images, c being the mean cross-entropy.

    Attributes:
        mending: what is done to a network before it is measured.
        fit: images for that, others than those it is measured on; labelled where it trains.
    """

    _: KW_ONLY
    mending: Mending
    fit: Sequence[Batch]

    def measured(self, pruned: State) -> tuple[float, float]:
        """The error of a network, mended; infinite where its training or its logits end in no finite numbers."""
        share, (dense, cut) = self.share(pruned), self.mending.passes
        passes = share * sum(map(len, self.batches)) + (dense + cut * share) * sum(map(len, self.fit))
        try:
            mended = self.mending.apply(pruned, self.fit)
        except DivergedError:  # a plan that cannot be trained is a bad plan, and no end of the search
            return float("inf"), passes
        outputs = mended.network.outputs
        read = outputs.logits if outputs.asked else logits_of
        device = device_of(mended.model)
        with evaluating([mended.model]):
            moved = [batch.to(device) for batch in self.batches]
            pairs = [(read(call(mended.model, batch)), _classes(batch)) for batch in moved]
        return error_of(torch.cat([z for z, _ in pairs]), torch.cat([y for _, y in pairs])), passes

    @property
    def most_per_plan(self) -> float:
        """A run on all images, and the mending of the whole network."""
        return float(sum(map(len, self.batches)) + sum(self.mending.passes) * sum(map(len, self.fit)))

    @property
    def asked(self) -> tuple[object, ...]:
        """The mending, and its images."""
        return self.mending.name, *self.fit


def error_of(logits: Tensor, labels: Tensor) -> float:
    """(wrong + c / (1 + c)) / images, so that fewer wrong answers always win and c breaks ties.

    Args:
        logits: (B, K).
        labels: (B,), class numbers.

    Returns:
        From 0 to 1 + 1 / B; infinite where logits are not finite.
    """
    if not bool(torch.isfinite(logits).all()):
        return float("inf")
    logits, labels = logits.cpu().double(), labels.cpu().long()
    wrong = float((logits.argmax(dim=1) != labels).sum())
    mean = float(F.cross_entropy(logits, labels))
    return (wrong + mean / (1 + mean)) / len(labels)


def _classes(batch: Batch) -> Tensor:
    if batch.labels is None:
        raise InputError("the images that plans are measured on have no labels: give (inputs, labels) batches")
    return batch.labels
