"""Repair: refit what remains, layer by layer, in closed form, so that the pruned stream tracks the dense one.

Layer-wise least squares after channel removal goes back to He, Zhang & Sun (ICCV 2017) and ThiNet (Luo et al., ICCV
2017). Ours: targets are the dense network's values *after* the residual addition, inputs are the pruned network's
own, so that errors are corrected instead of piling up; producers are refitted as well as consumers; negative targets
in front of a ReLU only bound the fit; the ridge shrinks towards the trained weights. No labels, no gradient steps.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from whyprune.data.batches import Batch, chunked
from whyprune.effects.outcomes import Outcome, judged
from whyprune.errors import InputError
from whyprune.progress import Progress
from whyprune.repair.gather import rows_for
from whyprune.repair.lockstep import StreamedActivations, schedule
from whyprune.repair.solve import RIDGE, refit
from whyprune.repair.targets import RefitTarget, targets
from whyprune.repair.writeback import Refitted, write
from whyprune.structure.copies import duplicate
from whyprune.structure.entry import entered
from whyprune.structure.network import Network
from whyprune.structure.replay import Replay
from whyprune.structure.state import State

RELU_PASSES = 5
BATCH = 128
GUARD_BATCHES = 3


def repair(
    state: State,
    data: Iterable[Any],
    *,
    outcome: Outcome | str | None = None,
    ridge: float = RIDGE,
    relu_passes: int = RELU_PASSES,
    seed: int = 0,
    progress: bool = False,
) -> State:
    """Refits every convolution, transposed or not, and every linear layer towards the dense network's values.

    What cannot be refitted stays as it is (`unrefitted` in `repair/coverage.py` names it).

    Args:
        state: the network as it is now; its module is not changed.
        data: unlabelled batches; a few hundred images suffice, augmented copies help.
        outcome: what must not get worse (default `LogitShift`).
        ridge: pull towards the weights that are there, relative to the features' mean energy.
        relu_passes: how often a layer in front of a ReLU is solved again with its silent targets relaxed.
        seed: of the sampled output places.
        progress: show a progress bar.

    Returns:
        The state with a repaired copy, or an unchanged copy if the outcome on `data` would have become worse.

    Raises:
        InputError: there is no data.
    """
    state = State.of(state)
    network = state.network
    batches = chunked(entered(data, network), BATCH)
    if not batches:
        raise InputError("there is no data to repair with: give a few hundred unlabelled images")
    replay = Replay.of(state)
    order = schedule(replay)
    jobs = targets(replay, order)
    refitted = _run(network, replay, order, jobs, batches, ridge, relu_passes, seed, progress)
    return rewritten(state, replay, refitted, batches, outcome)


def _run(
    network: Network,
    replay: Replay,
    order: Sequence[Any],
    jobs: Sequence[RefitTarget],
    batches: Sequence[Batch],
    ridge: float,
    relu_passes: int,
    seed: int,
    progress: bool,
) -> list[Refitted]:
    generator = torch.Generator().manual_seed(seed)
    whole = Replay(network)  # what lies in a bypassed block runs here all the same
    dense = StreamedActivations(whole, batches, schedule(whole), pinned={job.aim for job in jobs})
    pruned = StreamedActivations(replay, batches, order)
    results = []
    with Progress(progress) as bars:
        bar = bars.add("Repairing layers", len(jobs))
        for job in jobs:
            result = refit_layer(replay, dense, pruned, job, generator, ridge=ridge, relu_passes=relu_passes)
            results.append(result)
            pruned.advance(job.node)
            bars.advance(bar)
    return results


def refit_layer(
    replay: Replay,
    dense: StreamedActivations,
    pruned: StreamedActivations,
    job: RefitTarget,
    generator: torch.Generator,
    *,
    ridge: float = RIDGE,
    relu_passes: int = RELU_PASSES,
) -> Refitted:
    """Refits one layer of a replay, which from now on runs with it; both sides have come no further than the layer."""
    weight, _ = replay.parameters_of(job.node)
    how = job.layout
    start = how.matrix(weight)
    x, target, offset = rows_for(dense, pruned, job, start.shape[-1], generator)
    passes = relu_passes if job.relu else 0
    new, bias = refit(x, target, offset, start, ridge=ridge, relu_passes=passes, intercept=job.intercept)
    response = x @ new.mT
    found = Refitted(
        node=job.node,
        weight=how.weight(new.reshape(how.filters(weight).shape)),
        bias=bias.flatten(),
        mean=response.mean(dim=-2).flatten(),
        variance=response.var(dim=-2).flatten(),
    )
    replay.set_parameters(job.node, found.weight, found.bias)
    return found


def rewritten(
    state: State,
    replay: Replay,
    refitted: Sequence[Refitted],
    batches: Sequence[Batch],
    outcome: Outcome | str | None,
) -> State:
    """A copy with refitted weights; with the old ones if the outcome would have become worse."""
    result = duplicate(state.model)
    for layer in refitted:
        write(replay, result, layer)
    return no_worse(state, state.with_model(result), batches, outcome)


def no_worse(before: State, after: State, batches: Sequence[Batch], outcome: Outcome | str | None) -> State:
    """`after`, or a copy of `before` where the outcome on the last few batches has become worse."""
    few = batches[-GUARD_BATCHES:]
    seen, asked = judged(before, outcome)
    dense = Replay(seen.network)
    reference = [dense.logits(b) for b in few]
    measured = asked.fit(torch.cat(reference))

    def harm(state: State) -> float:
        replay = Replay.of(judged(state, outcome)[0])
        pairs = zip(few, reference, strict=True)
        return float(torch.cat([measured(replay.logits(b), z, b.labels) for b, z in pairs]).mean())

    return after if harm(after) <= harm(before) else before.with_model(duplicate(before.model))
