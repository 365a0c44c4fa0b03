"""True first and second derivatives of the outcome along the way from a unit's activation to the value v.

Every reader sees a + t (v - a) in the unit's channels, whatever happens to them further up; dY/dt and d²Y/dt² at t = 0
are g·delta and delta'H delta. They are taken by differentiating twice, row by row: one row for each unit and image.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from whyprune.data.batches import Batch
from whyprune.effects.outcomes import Outcome
from whyprune.interventions.suffix import ROWS, Suffix, Value, apart, rebatched, suffixes
from whyprune.structure.network import Reader
from whyprune.structure.replay import Edit, Replay, Values, leaves
from whyprune.structure.units import Unit

Floats = NDArray[np.float64]
PASSES = 9.0
"""Forward 1, backward 2, and backward through both of them twice that, in forward passes."""


def second_order(
    replay: Replay,
    dense: Replay,
    batches: Sequence[Batch],
    units: Sequence[Unit],
    outcome: Outcome,
    value: Value,
    advance: Callable[[int], None],
) -> tuple[Floats, Floats]:
    """(g·delta, delta'H delta / 2) of every unit on every image, each (units, images).

    Args:
        replay: the network.
        dense: the original, to which the outcome compares.
        batches: the images.
        units: group by group.
        outcome: fitted.
        value: fitted; a constant.
        advance: called with the number of rows done.
    """
    replay.network.check_images_apart()
    plans = suffixes(replay, units)
    parts: list[tuple[Floats, Floats]] = []
    for batch in rebatched(batches, replay, plans):
        found = []
        for plan in plans:
            together = 1 if replay.network.graph.batch_size else max(1, ROWS // 4 // len(batch))
            for start in range(0, len(plan.units), together):
                block = plan.units[start : start + together]
                found.append(_derivatives((replay, dense), batch, plan, block, outcome, value))
                advance(len(block) * len(batch))
        parts.append((np.concatenate([f for f, _ in found]), np.concatenate([s for _, s in found])))
    return np.concatenate([f for f, _ in parts], axis=1), np.concatenate([s for _, s in parts], axis=1)


def hessian_cost(replay: Replay, units: Sequence[Unit]) -> float:
    """Cost per image of all units, in dense forward passes."""
    macs = replay.network.cost.by_operation()
    total = max(sum(macs.values()), 1)
    return sum(
        len(plan.units) * (1.0 + (PASSES - 1) * sum(macs[n.name] for n in _steps(replay, plan)) / total)
        for plan in suffixes(replay, units)
    )


def _steps(replay: Replay, plan: Suffix) -> list[fx.Node]:
    return replay.behind({r.node for r in plan.readers})


def _derivatives(
    networks: tuple[Replay, Replay],
    batch: Batch,
    plan: Suffix,
    units: Sequence[Unit],
    outcome: Outcome,
    value: Value,
) -> tuple[Floats, Floats]:
    replay, dense = networks
    steps = _steps(replay, plan)
    seen = replay.run(batch, keep=replay.frontier(steps) | {r.data for r in plan.readers})
    count, places = len(batch), torch.arange(len(batch)).repeat(len(units))
    plain: Values = leaves({n: replay.taken(n, v, places, count) for n, v in seen.items()})
    target = (replay.read(seen) if dense is replay else dense.logits(batch)).clone()
    target = target.repeat(len(units), *[1] * (target.dim() - 1))
    t = torch.zeros(len(places), dtype=target.dtype, requires_grad=True)
    changes = {(r.node, r.data): _towards(replay, r, units, value, plain[r.data], t) for r in plan.readers}
    needed = {n: plain[n] for n in replay.frontier(steps)}
    logits = replay.read(replay.follow(needed, steps, changes))
    labels = None if batch.labels is None else batch.labels.repeat(len(units))
    with torch.enable_grad():
        harm = outcome(logits, target, labels).sum()
        first = _gradient(harm, t, again=True)
        second = _gradient(first.sum(), t, again=False)
    shape = (len(units), count)
    return first.detach().double().reshape(shape).numpy(), 0.5 * second.detach().double().reshape(shape).numpy()


def _gradient(scalar: Tensor, t: Tensor, *, again: bool) -> Tensor:
    """The derivative, 0 where the scalar does not depend on t."""
    if not scalar.requires_grad:
        return torch.zeros_like(t)
    found = torch.autograd.grad(scalar, t, create_graph=again, allow_unused=True)[0]
    return torch.zeros_like(t) if found is None else found


def _towards(replay: Replay, reader: Reader, units: Sequence[Unit], value: Value, plain: Tensor, t: Tensor) -> Edit:
    """Shows a reader a + t (v - a) in the channels of the row's unit."""
    lie = apart(replay, reader)
    inside, deltas = [], []
    for unit, block in zip(units, lie.split(plain, len(units)), strict=True):
        place = replay.positions(reader.labels, [unit])
        change_of_one = value.change(reader, block, place, len(t) // len(units))
        deltas.append(torch.zeros_like(block).index_add_(reader.dim, place, change_of_one))
        inside.append(torch.zeros_like(block, dtype=torch.bool).index_fill_(reader.dim, place, True))
    delta, shown = lie.join(deltas), lie.join(inside)

    def change(tensor: Tensor) -> Tensor:
        return torch.where(shown, plain + lie.spread(t, plain) * delta, tensor)

    return change
