"""Whole plans, measured on the network: cut, mended as they are told to, run; each set of units once.

`MeasuredPlans` is what all of them share: what is known already, what was spent, and what an interrupted search left.
`MeasuredEffects` gives joint effects; `measured_errors` has the errors of classifiers.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from whyprune.allocation.kept_plans import KeptPlans, question_of
from whyprune.data.batches import Batch
from whyprune.effects.outcomes import Outcome, judged
from whyprune.errors import BudgetError
from whyprune.repair.refit import repair
from whyprune.structure.remove import remove
from whyprune.structure.replay import Replay
from whyprune.structure.state import State

Key = tuple[str, ...]


@dataclass
class MeasuredPlans(ABC):
    """The harm of removing units, measured once for each set; passes are counted.

    Attributes:
        state: where plans start.
        batches: images to measure on; for an honest number in the end, others than those of the audit.
        most_passes: forward passes of one dense image to spend at most; None for no limit. A refit counts one dense and
            one pruned pass per image, a step of training three.
        seed: of everything drawn.
        kept: plans that an interrupted search has measured, and where this one keeps its own; None for nowhere.
        forward_passes: spent so far, those of an interrupted search included.
        known: sets of units -> their harm; infinite where the network gave no finite numbers.
    """

    state: State
    batches: Sequence[Batch]
    _: KW_ONLY
    most_passes: float | None = None
    seed: int = 0
    kept: KeptPlans | None = None
    forward_passes: float = 0.0
    known: dict[Key, float] = field(default_factory=dict)

    def __call__(self, units: Sequence[str], /) -> float:
        """The harm of removing all these units, those included that the state lacks.

        Raises:
            InputError: a unit is unknown, or an axis would be left without channels.
            BudgetError: the passes are spent.
        """
        key = tuple(sorted(units))
        if key not in self.known:
            found = None if self.kept is None else self.kept.get(self.question, key)
            self.known[key], passes = self._paid(key) if found is None else found
            self.forward_passes += passes
        return self.known[key]

    @property
    def is_spent(self) -> bool:
        """Whether no further set can be paid for, at what the last one cost at most."""
        return self.most_passes is not None and self.forward_passes + self.most_per_plan > self.most_passes

    @abstractmethod
    def measured(self, pruned: State) -> tuple[float, float]:
        """The harm of a network as cut, and what it cost, in dense forward passes of one image."""

    @property
    @abstractmethod
    def most_per_plan(self) -> float:
        """Passes of one plan at most."""

    @property
    @abstractmethod
    def asked(self) -> tuple[object, ...]:
        """What is measured, besides state and images: numbers, names and batches that tell it from anything else."""

    @cached_property
    def question(self) -> str:
        """Tells what this measures from anything else: weights, what they lack, images, and what is asked of them."""
        return question_of(type(self).__name__, self.state, self.batches, self.seed, *self.asked)

    def _paid(self, key: Key) -> tuple[float, float]:
        if self.is_spent:
            raise BudgetError(f"{self.most_passes:g} forward passes are spent: give more to measure further plans")
        harm, passes = self.measured(remove(self.state, key))
        harm = harm if np.isfinite(harm) else np.inf
        if self.kept is not None:
            self.kept.put(self.question, key, harm, passes)
        return harm, passes

    def share(self, pruned: State) -> float:
        """What one pass of a pruned network costs, in dense passes, by MACs."""
        cost = self.state.network.cost
        return cost(pruned.removed).macs / max(cost().macs, 1)


@dataclass
class MeasuredEffects(MeasuredPlans):
    """The mean joint effect of removing units.

    Attributes:
        outcome: what harm is.
        fit: images on which what is left is refitted before it is measured; none for networks as cut.
    """

    outcome: Outcome | str | None = None
    fit: Sequence[Batch] = ()

    def measured(self, pruned: State) -> tuple[float, float]:
        """The joint effect of what a network lacks, refitted if there are images for it."""
        share = self.share(pruned)
        passes = share * sum(map(len, self.batches))
        if self.fit:
            pruned = repair(pruned, self.fit, outcome=self.outcome, seed=self.seed)
            passes += (1 + share) * sum(map(len, self.fit))
        replay = Replay.of(judged(pruned, self.outcome)[0])
        harms = [
            self._harm(replay.logits(batch), dense, batch)
            for batch, dense in zip(self.batches, self._dense, strict=True)
        ]
        return float(torch.cat(harms).double().mean()), passes

    @property
    def most_per_plan(self) -> float:
        """A run on all images, and a refit."""
        return float(sum(map(len, self.batches)) + 2 * sum(map(len, self.fit)))

    @property
    def asked(self) -> tuple[object, ...]:
        """The outcome, and the images of the refit."""
        return "refitted" if self.fit else "as cut", judged(self.state, self.outcome)[1].name, *self.fit

    def _harm(self, logits: Tensor, dense: Tensor, batch: Batch) -> Tensor:
        return self._fitted(logits, dense, batch.labels) - self._fitted(dense, dense, batch.labels)

    @cached_property
    def _dense(self) -> list[Tensor]:
        dense = Replay(judged(self.state, self.outcome)[0].network)
        self.forward_passes += sum(map(len, self.batches))
        return [dense.logits(batch) for batch in self.batches]

    @cached_property
    def _fitted(self) -> Outcome:
        return judged(self.state, self.outcome)[1].fit(torch.cat(self._dense))
