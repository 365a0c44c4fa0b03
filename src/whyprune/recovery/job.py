"""What a training needs, and what it finds on the validation part."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from whyprune.data.batches import Batch
from whyprune.recovery.checkpoint import TrainingOrigin
from whyprune.recovery.config import Recovery
from whyprune.recovery.features import MatchedLayer
from whyprune.recovery.penalty import PenaltyFactory
from whyprune.recovery.split import Parts
from whyprune.structure.network import Network

Logits = Callable[[nn.Module, Batch], Tensor]
StepHook = Callable[[int, int], None]


@dataclass(frozen=True)
class Job:
    """Everything a training needs; `net` is trained in place, `dense` only read, `network` is what `penalty` gets."""

    net: nn.Module
    dense: nn.Module | None
    layers: Sequence[MatchedLayer]
    parts: Parts
    recovery: Recovery
    seed: int
    classes: int
    channels_last: bool
    logits: Logits
    origin: TrainingOrigin
    checkpoint: Path | None
    checkpoint_interval_s: float
    resume: bool
    progress: bool
    on_step: StepHook | None
    penalty: PenaltyFactory | None = None
    penalty_weight: float = 1.0
    network: Network | None = None


@dataclass(frozen=True)
class Validation:
    """Means over the validation part; no accuracy without labels."""

    loss: float
    top1_percent: float | None

    @property
    def score(self) -> float:
        """Higher is better: accuracy, or the negative loss where there are no labels."""
        return -self.loss if self.top1_percent is None else self.top1_percent
