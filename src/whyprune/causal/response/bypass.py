"""What it does to the outcome when a residual block goes as a whole: measured on the network's output.

As for response curves, the network is first repaired locally: the next few layers are refitted towards the dense
network's values, which mends most of what the missing block does to them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from whyprune.causal.response.bench import Bench
from whyprune.data.batches import Batch, chunked, cut_images
from whyprune.effects.outcomes import Outcome
from whyprune.progress import Progress
from whyprune.repair.lockstep import StreamedActivations, schedule
from whyprune.repair.refit import refit_layer
from whyprune.repair.targets import targets
from whyprune.structure.blocks import Block
from whyprune.structure.bypass import units_of
from whyprune.structure.entry import entered
from whyprune.structure.network import Network
from whyprune.structure.replay import Replay
from whyprune.structure.state import State

FIT_IMAGES = 128
REFITTED = 4
"""Layers behind a block that are refitted: those of two further blocks, in most networks."""
FIT_CHUNK = 64


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
    start: Network | State,
    fit: Iterable[Any],
    measure: Iterable[Any],
    *,
    outcome: Outcome | str | None = None,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, BypassEffect]:
    """Block -> the effect of handing on what it gets, of every residual block, conditional on what is gone.

    Args:
        start: a traced model, or a state of it.
        fit: batches for local refits.
        measure: other batches, on which effects are measured.
        outcome: what harm is (default `LogitShift`, of other outputs `OutputShift`).
        seed: of sampled output places.
        progress: show a progress bar.
    """
    state = State.of(start)
    network, blocks = state.network, blocks_left(state)
    bench = _Bench(state, measure, outcome)
    batches = chunked(cut_images(list(entered(fit, network)), FIT_IMAGES)[0], FIT_CHUNK)
    found: dict[str, BypassEffect] = {}
    with Progress(progress) as bars:
        bar = bars.add("Measuring residual blocks", len(blocks))
        for block in blocks:
            found[block.name] = bench.effect(block, bench.without(block, batches, seed))
            bars.advance(bar)
    return found


def blocks_left(state: State) -> list[Block]:
    """The residual blocks of which something is there."""
    gone = {block.name for block in state.network.bypassed(state.removed)}
    return [block for block in state.network.blocks if block.name not in gone]


class _Bench(Bench):
    """The network as it is, and the images on which it is compared with itself without a block."""

    def __init__(self, state: State, measure: Iterable[Any], outcome: Outcome | str | None) -> None:
        super().__init__(state, measure, outcome)
        self.order = schedule(self.dense)

    def without(self, block: Block, batches: Sequence[Batch], seed: int) -> Replay:
        """The network without a block, the next layers refitted."""
        network, lost = self.state.network, units_of(self.state.network, [block])
        replay = Replay(network, self.state.model, (*self.state.removed, *lost))
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
