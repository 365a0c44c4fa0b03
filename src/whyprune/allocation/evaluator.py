"""`MeasuredEffects`: joint effects of whole plans, measured on the network: cut, repaired if asked for, run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from whyprune.data.batches import Batch
from whyprune.effects.outcomes import Outcome, judged
from whyprune.errors import BudgetError
from whyprune.repair.refit import repair
from whyprune.structure.remove import remove
from whyprune.structure.replay import Replay
from whyprune.structure.state import State


@dataclass
class MeasuredEffects:
    """The joint effect of removing units, measured once for each set; passes are counted.

    Attributes:
        state: where plans start.
        batches: images to measure on; for an honest number in the end, others than those of the audit.
        outcome: what harm is.
        fit: images on which what is left is refitted before it is measured; none for networks as cut.
        most_passes: forward passes of one dense image to spend at most; None for no limit. A refit counts one dense and
            one pruned pass per image.
        seed: of sampled output places.
        forward_passes: spent so far.
    """

    state: State
    batches: Sequence[Batch]
    outcome: Outcome | str | None = None
    fit: Sequence[Batch] = ()
    most_passes: float | None = None
    seed: int = 0
    forward_passes: float = 0.0
    known: dict[tuple[str, ...], float] = field(default_factory=dict)

    def __call__(self, units: Sequence[str], /) -> float:
        """The mean joint effect over the images of all these units, those included that the state lacks.

        Raises:
            InputError: a unit is unknown, or an axis would be left without channels.
            BudgetError: the passes are spent.
        """
        key = tuple(sorted(units))
        if key not in self.known:
            self.known[key] = self._measured(key)
        return self.known[key]

    @property
    def is_spent(self) -> bool:
        """Whether no further set can be paid for, at what the last one cost at most."""
        return self.most_passes is not None and self.forward_passes + self._most_per_set > self.most_passes

    def _measured(self, units: tuple[str, ...]) -> float:
        if self.is_spent:
            raise BudgetError(f"{self.most_passes:g} forward passes are spent: give more to measure further plans")
        pruned = remove(self.state, units)
        share = self._share(pruned)
        if self.fit:
            pruned = repair(pruned, self.fit, outcome=self.outcome, seed=self.seed)
            self.forward_passes += (1 + share) * sum(map(len, self.fit))
        replay = Replay.of(judged(pruned, self.outcome)[0])
        harms = [
            self._harm(replay.logits(batch), dense, batch)
            for batch, dense in zip(self.batches, self._dense, strict=True)
        ]
        self.forward_passes += share * sum(map(len, self.batches))
        return float(torch.cat(harms).double().mean())

    def _harm(self, logits: Tensor, dense: Tensor, batch: Batch) -> Tensor:
        return self._fitted(logits, dense, batch.labels) - self._fitted(dense, dense, batch.labels)

    def _share(self, pruned: State) -> float:
        """What one pass of a pruned network costs, in dense passes, by MACs."""
        cost = self.state.network.cost
        return cost(pruned.removed).macs / max(cost().macs, 1)

    @property
    def _most_per_set(self) -> float:
        return float(sum(map(len, self.batches)) + 2 * sum(map(len, self.fit)))

    @cached_property
    def _dense(self) -> list[Tensor]:
        dense = Replay(judged(self.state, self.outcome)[0].network)
        self.forward_passes += sum(map(len, self.batches))
        return [dense.logits(batch) for batch in self.batches]

    @cached_property
    def _fitted(self) -> Outcome:
        return judged(self.state, self.outcome)[1].fit(torch.cat(self._dense))
