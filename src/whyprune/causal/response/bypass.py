"""What it does to the outcome when a residual block goes as a whole: measured on the network's output.

As for response curves, the network is first repaired locally: the next few layers are refitted towards the dense
network's values, which mends most of what the missing block does to them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from whyprune.causal.response.bench import Bench
from whyprune.data.batches import Batch, as_batches, chunked, cut_images
from whyprune.effects.joint import fitted
from whyprune.effects.outcomes import Outcome
from whyprune.progress import Progress
from whyprune.repair.lockstep import StreamedActivations, schedule
from whyprune.repair.refit import refit_layer
from whyprune.repair.targets import targets
from whyprune.structure.blocks import Block
from whyprune.structure.bypass import units_of
from whyprune.structure.network import Network
from whyprune.structure.replay import Replay
from whyprune.structure.units import Unit

FIT_IMAGES = 128
REFITTED = 4
"""Layers behind a block that are refitted: those of two further blocks, in most networks."""
CHUNK = 64


@dataclass(frozen=True)
class BypassEffect:
    """E[Y | do(block := identity), locally repaired] - E[Y], given what is gone already.

    Attributes:
        block: path of the module.
        effect: mean over images.
        standard_error: of the mean.
    """

    block: str
    effect: float
    standard_error: float


def bypass_effects(
    network: Network,
    fit: Iterable[Any],
    measure: Iterable[Any],
    *,
    outcome: Outcome | str | None = None,
    model: nn.Module | None = None,
    removed: Sequence[Unit] = (),
    seed: int = 0,
    progress: bool = False,
) -> dict[str, BypassEffect]:
    """Block -> the effect of handing on what it gets, of every residual block that is still there.

    Args:
        network: a traced model.
        fit: batches for local refits.
        measure: other batches, on which effects are measured.
        outcome: what harm is (default `LogitShift`).
        model: the network without `removed`, as repaired so far.
        removed: the units it lacks.
        seed: of sampled output places.
        progress: show a progress bar.
    """
    gone = {block.name for block in network.bypassed(removed)}
    blocks = [block for block in network.blocks if block.name not in gone]
    bench = _Bench(network, model, removed, measure, outcome)
    batches = chunked(cut_images(list(as_batches(fit, network.positional)), FIT_IMAGES)[0], CHUNK)
    found: dict[str, BypassEffect] = {}
    with Progress(progress) as bars:
        bar = bars.add("Measuring residual blocks", len(blocks))
        for block in blocks:
            found[block.name] = bench.effect(block, bench.without(block, batches, seed))
            bars.advance(bar)
    return found


class _Bench(Bench):
    """The network as it is, and the images on which it is compared with itself without a block."""

    def __init__(
        self,
        network: Network,
        model: nn.Module | None,
        removed: Sequence[Unit],
        measure: Iterable[Any],
        outcome: Outcome | str | None,
    ) -> None:
        self.network, self.model, self.removed = network, model, tuple(removed)
        self.dense = Replay(network)
        self.order = schedule(self.dense)
        batches = chunked(as_batches(measure, network.positional), CHUNK)
        now = Replay(network, model, removed)
        super().__init__(now, self.dense, batches, fitted(outcome, self.dense, batches))

    def without(self, block: Block, batches: Sequence[Batch], seed: int) -> Replay:
        """The network without a block, the next layers refitted."""
        replay = Replay(self.network, self.model, (*self.removed, *units_of(self.network, [block])))
        order = schedule(replay)
        behind = set(replay.behind({block.result}))
        jobs = [job for job in targets(replay, order) if job.node in behind][:REFITTED]
        dense = StreamedActivations(self.dense, batches, self.order, pinned={job.aim for job in jobs})
        pruned = StreamedActivations(replay, batches, order)
        generator = torch.Generator().manual_seed(seed)
        for job in jobs:
            refit_layer(replay, dense, pruned, job, generator)
            pruned.advance(job.node)
        return replay

    def effect(self, block: Block, replay: Replay) -> BypassEffect:
        """What a network does without a block, beside what it does with it."""
        found = [self.harm(k, replay.logits(b)) for k, b in enumerate(self.batches)]
        harm = torch.cat(found).double().numpy()
        error = float(harm.std(ddof=1) / np.sqrt(len(harm))) if len(harm) > 1 else float("nan")
        return BypassEffect(block.name, float(harm.mean()), error)
