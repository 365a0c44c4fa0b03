"""Reconstruction: refit all layers of a residual branch together, so that the pruned stream tracks the dense one.

What is minimised is block reconstruction (BRECQ: Li et al., ICLR 2021): the distance of the pruned network's stream
from the dense one behind each branch, on the pruned network's own inputs. `repair` refits one layer at a time towards
the channels that are left, which cannot become anything else; here the inner layers may make other features, of which
the branch needs fewer. Ours: solved by Gauss-Newton instead of stochastic gradients, on another view of the images in
every round; what a ReLU hides does not count. No labels, and no derivative leaves a branch.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from whyprune.data.batches import chunked
from whyprune.effects.outcomes import Outcome
from whyprune.errors import InputError
from whyprune.progress import Progress
from whyprune.repair.gauss_newton import gauss_newton_step
from whyprune.repair.lockstep import StreamedActivations, schedule
from whyprune.repair.refit import BATCH, refit_layer, rewritten
from whyprune.repair.segments import Segment, Weights, segments
from whyprune.repair.targets import targets
from whyprune.repair.writeback import Refitted
from whyprune.structure.entry import entered
from whyprune.structure.replay import Replay, Values, leaves
from whyprune.structure.state import State

ROUNDS = 8
ITERATIONS = 8
DAMPING = 1e-3
MORE_DAMPING = 10.0
"""After a step that did not help (Marquardt 1963)."""
NO_DERIVATIVE = "derivative for"
"""Begins what PyTorch says of an operation that it cannot differentiate."""
SHORTER = (1.0, 0.5, 0.25)
LEAST_BATCHES = 8
MAX_BYTES = 2**28
"""Of the values of a segment that one round looks at; derivatives take several times as much."""


def reconstruct(
    state: State,
    data: Iterable[Any],
    *,
    outcome: Outcome | str | None = None,
    rounds: int = ROUNDS,
    iterations: int = ITERATIONS,
    damping: float = DAMPING,
    seed: int = 0,
    progress: bool = False,
) -> State:
    """Refits the layers of every residual branch together; start from what `repair` gives.

    Args:
        state: the network as it is now; its module is not changed.
        data: unlabelled batches; some thousand images, augmented copies among them.
        outcome: what must not get worse (default `LogitShift`).
        rounds: Gauss-Newton steps for each branch, each on its own part of the data.
        iterations: of conjugate gradients in each step.
        damping: how much steps are held back, relative to the curvature.
        seed: of what is drawn.
        progress: show a progress bar.

    Returns:
        The state with a reconstructed copy, or an unchanged copy if the outcome on `data` would have become worse.
        Branches with an operation that PyTorch cannot differentiate stay as they are.

    Raises:
        InputError: there is no data, or a number is not positive.
    """
    if rounds < 1 or iterations < 1 or not damping > 0:
        raise InputError(f"rounds={rounds}, iterations={iterations}, damping={damping}: all must be above 0")
    state = State.of(state)
    network = state.network
    batches = chunked(entered(data, network), BATCH)
    if not batches:
        raise InputError("there is no data to reconstruct with: give a few hundred unlabelled images")
    replay = Replay.of(state)
    order = schedule(replay)
    parts = segments(targets(replay, order), order)
    whole = Replay(network)  # what lies in a bypassed block runs here all the same
    dense = StreamedActivations(whole, batches, schedule(whole), pinned={part.aim for part in parts})
    ours = StreamedActivations(replay, batches, order)
    solver = _Solver(rounds, iterations, damping, torch.Generator().manual_seed(seed))
    found: list[Refitted] = []
    with Progress(progress) as bars:
        bar = bars.add("Reconstructing branches", len(parts))
        for part in parts:
            if len(part.layers) == 1:
                found.append(refit_layer(replay, dense, ours, part.layers[0], solver.generator))
            else:
                found += solver.solve(replay, part, dense, ours)
            ours.advance(part.aim)
            bars.advance(bar)
    return rewritten(state, replay, found, batches, outcome)


class _Solver:
    """Gauss-Newton steps for one segment after the other."""

    def __init__(self, rounds: int, iterations: int, damping: float, generator: torch.Generator) -> None:
        self.rounds, self.iterations, self.damping, self.generator = rounds, iterations, damping, generator

    def solve(
        self, replay: Replay, part: Segment, dense: StreamedActivations, ours: StreamedActivations
    ) -> list[Refitted]:
        """Sets the segment's weights, and returns them; nothing where they stay as they are."""
        dense.advance(part.aim)
        ours.advance_before(part.steps[0])
        aims = [replay.kept(part.aim, t).clone() for t in dense.of(part.aim)]
        before = [leaves({n: v[n] for n in part.needs(replay) if n in v}) for v in ours.values]
        dense.release(part.aim)
        size = sum(t.nbytes for t in part.values(replay, before[0]).values() if isinstance(t, Tensor))
        affordable = max(1, MAX_BYTES // size)
        weights = Weights(replay, part)
        damping, kept = self.damping, weights.now()
        for drawn in self._drawn(len(aims), affordable):
            shown = [before[k] for k in drawn], [aims[k] for k in drawn]
            try:
                helped = self._step(weights, *shown, part.layers[-1].relu, damping)
            except RuntimeError as error:
                if NO_DERIVATIVE not in str(error):
                    raise
                weights.set(kept)
                return []
            damping = self.damping if helped else MORE_DAMPING * damping
        return _moments(replay, part, before[:affordable])

    def _drawn(self, batches: int, affordable: int) -> list[list[int]]:
        """Which batches each round looks at: its own share, but no fewer than `LEAST_BATCHES` if there are so many."""
        count = min(max(batches // self.rounds, min(batches, LEAST_BATCHES)), affordable)
        return [[(number * count + k) % batches for k in range(count)] for number in range(self.rounds)]

    def _step(
        self, weights: Weights, before: Sequence[Values], aims: Sequence[Tensor], relu: bool, damping: float
    ) -> bool:
        """One step, shortened until it helps; whether it did."""
        functions = [weights.function(values) for values in before]
        start = weights.now()
        seen = [function(*start) for function in functions]
        pairs = list(zip(seen, aims, strict=True))
        counts = [((p > 0) | (t > 0)).to(p.dtype) if relu else torch.ones_like(p) for p, t in pairs]
        missing = [(t.clamp_min(0) if relu else t) - p for p, t in pairs]
        step = gauss_newton_step(
            functions,
            start,
            missing,
            counts,
            iterations=self.iterations,
            damping=damping,
            generator=self.generator,
        )
        worst = _distance(seen, aims, relu)
        for length in SHORTER:
            moved = tuple(p + length * s for p, s in zip(start, step, strict=True))
            if _distance([function(*moved) for function in functions], aims, relu) < worst:
                weights.set(moved)
                return True
        return False


def _distance(seen: Sequence[Tensor], aims: Sequence[Tensor], relu: bool) -> float:
    """The squared distance of values from their aims; of what a ReLU lets through, if one follows."""
    pairs = [(p.clamp_min(0), t.clamp_min(0)) if relu else (p, t) for p, t in zip(seen, aims, strict=True)]
    return sum(float((p - t).square().sum(dtype=torch.float64)) for p, t in pairs)


def _moments(replay: Replay, part: Segment, before: Sequence[Values]) -> list[Refitted]:
    """The layers as they now run, with the moments of what they make, without bias."""
    made = [part.values(replay, values) for values in before]
    found = []
    for layer in part.layers:
        weight, bias = replay.parameters_of(layer.node)
        assert bias is not None
        rows = torch.cat([_rows(layer.layout.kernel is None, values[layer.node]) for values in made]) - bias
        found.append(Refitted(layer.node, weight, bias, rows.mean(dim=0), rows.var(dim=0)))
    return found


def _rows(linear: bool, value: Tensor) -> Tensor:
    """(places, O)."""
    return value.flatten(0, -2) if linear else value.movedim(1, -1).flatten(0, -2)
