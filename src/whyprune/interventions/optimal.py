"""Optimal constants: for every unit the constant under which the outcome suffers least (optimal ablation).

Li & Janson, NeurIPS 2024 (arXiv 2409.09951): c* = argmin_c E[Y(do(u := c))]. [P] The definition; they find c* by
gradient steps. [I] Here it is found by real interventions: the closed form of the second-order expansion
(`closed_form`) is right near the activation's own values and can be worse than the mean far from them, so it is only
a candidate beside zero and the mean. All three are measured; the best two span a line, on which their midpoint
and the vertex of the parabola through the three are measured too. The best of the five is taken, so on the images given
no unit does worse than under `zero` or under `mean`. It is a local search: a better constant may exist.

Cost: `EVALUATIONS` exact effects of every unit, two passes for means, ranges and logits, and the closed form's backward
passes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from whyprune.data.batches import Batch
from whyprune.effects.outcomes import Outcome
from whyprune.interventions.sensitivity import PROBES, sensitivity
from whyprune.interventions.suffix import individual_effects, relative_cost, suffixes
from whyprune.structure.network import Network, Reader
from whyprune.structure.replay import Replay
from whyprune.structure.units import Unit

EVALUATIONS = 5
CLOSED_FORM_COST = 1.0 + 2.0 * PROBES
Harms = NDArray[np.float64]
At = dict[fx.Node, Tensor]


@dataclass(frozen=True)
class Constants:
    """One constant per channel of every tensor that a reader sees.

    Attributes:
        at: tensor -> (channels,), the channels being those that the network still has.
        forward_passes: what finding them cost, in dense forward passes of one image.
    """

    at: At
    forward_passes: float = 0.0

    def change(self, reader: Reader, value: Tensor, unit: Tensor, _images: int, /) -> Tensor:
        """The change c - u of the channels `unit`."""
        current = value.index_select(reader.dim, unit)
        shape = [1] * value.dim()
        shape[reader.dim] = len(unit)
        return self.at[reader.data][unit].to(value.dtype).reshape(shape) - current


def closed_form(replay: Replay, batches: Iterable[Batch], outcome: Outcome, dense: Replay | None = None) -> Constants:
    """One constant per unit: the least harmful one to second order (see `Sensitivity.optimal_constants`)."""
    found = sensitivity(replay, batches, outcome, dense=dense)
    best = dict(zip((u.label for u in replay.network.units), found.optimal_constants().tolist(), strict=True))
    at = {node: torch.tensor([best.get(label, 0.0) for label in labels]) for node, labels in _channels(replay).items()}
    return Constants(at, found.forward_passes)


def searched(
    replay: Replay,
    batches: Sequence[Batch],
    outcome: Outcome,
    units: Sequence[Unit],
    advance: Callable[[int], None] = lambda _: None,
) -> Constants:
    """The least harmful constants that are found for `units`; other channels get their mean.

    Args:
        replay: the network that is intervened on.
        batches: the images.
        outcome: fitted.
        units: group by group.
        advance: called with the number of units whose effects were measured.
    """
    same = replay.model is replay.network.model and not replay.gone
    dense = replay if same else Replay(replay.network)
    lines = _Lines(replay, units)
    low, mean, high = _ranges(replay, batches)

    def harm(at: At) -> Harms:
        found = individual_effects(replay, dense, batches, units, outcome, Constants(at))
        advance(len(units))
        mean_harm: Harms = found.astype(np.float64).mean(axis=1)
        return mean_harm

    closed = closed_form(replay, batches, outcome, dense)
    ends = [{node: torch.zeros_like(m) for node, m in mean.items()}, mean, _within(closed.at, low, high)]
    harms = [harm(at) for at in ends]
    order = np.argsort(np.stack(harms), axis=0, kind="stable")
    first, second = lines.choose(ends, order[0]), lines.choose(ends, order[1])
    middle = lines.between(first, second, np.full(len(units), 0.5))
    best = np.take_along_axis(np.stack(harms), order, axis=0)
    harms.append(harm(middle))
    vertex = _within(lines.between(first, second, _vertex(best[0], harms[3], best[1])), low, high)
    harms.append(harm(vertex))
    winner = np.argmin(np.stack(harms), axis=0)
    cost = closed.forward_passes + _search_cost(replay.network, replay, units) * sum(map(len, batches))
    return Constants(lines.choose([*ends, middle, vertex], winner, mean), cost)


def _search_cost(network: Network, replay: Replay, units: Sequence[Unit]) -> float:
    """Cost of the search per image, without the closed form, in dense forward passes."""
    return 2.0 + EVALUATIONS * (1.0 + relative_cost(network, suffixes(replay, units)) * len(units))


def _vertex(start: Harms, middle: Harms, end: Harms) -> Harms:
    """Where the parabola through harms at 0, 1/2 and 1 is lowest; beyond the better end (0) where it is not convex."""
    curvature = 2 * (start - 2 * middle + end)
    slope = 4 * middle - 3 * start - end
    with np.errstate(divide="ignore", invalid="ignore"):
        found = -slope / (2 * curvature)
    return np.clip(np.where(curvature > 0, found, -0.5), -4.0, 4.0)


class _Lines:
    """Channel-wise arithmetic on constants that differ from unit to unit."""

    def __init__(self, replay: Replay, units: Sequence[Unit]) -> None:
        place = {u.label: k for k, u in enumerate(units)}
        self._unit = {
            node: torch.tensor([place.get(label, -1) for label in labels], dtype=torch.long)
            for node, labels in _channels(replay).items()
        }

    def choose(
        self,
        options: Sequence[At],
        chosen: NDArray[np.int64],
        rest: At | None = None,
    ) -> At:
        """Option `chosen[k]` in the channels of unit k; `rest` (default: the first option) in all others."""
        table = torch.from_numpy(np.asarray(chosen, dtype=np.int64))
        found = {}
        for node, unit in self._unit.items():
            stacked = torch.stack([o[node] for o in options])
            picked = stacked.gather(0, table[unit.clamp_min(0)][None]).squeeze(0)
            found[node] = torch.where(unit >= 0, picked, (options[0] if rest is None else rest)[node])
        return found

    def between(self, start: At, end: At, share: Harms) -> At:
        """The points start + share (end - start), with a share per unit."""
        table = torch.from_numpy(share)
        return {
            node: start[node] + table[unit.clamp_min(0)].to(start[node].dtype) * (end[node] - start[node])
            for node, unit in self._unit.items()
        }


def _channels(replay: Replay) -> dict[fx.Node, list[int]]:
    """Tensor that a reader sees -> the class of every channel that the network still has."""
    return {r.data: [label for label in r.labels.tolist() if label not in replay.gone] for r in replay.network.readers}


def _ranges(replay: Replay, batches: Iterable[Batch]) -> tuple[At, ...]:
    """(lowest, mean, highest) value of every channel, over images and places."""
    dims = {r.data: r.dim for r in replay.network.readers}
    low: At = {}
    high: At = {}
    total: At = {}
    count: dict[fx.Node, int] = {}
    for batch in batches:
        values = replay.run(batch, keep=dims)
        for node, dim in dims.items():
            rows = values[node].movedim(dim, -1).flatten(0, -2)
            least, most = rows.amin(dim=0), rows.amax(dim=0)
            low[node] = torch.minimum(low.get(node, least), least)
            high[node] = torch.maximum(high.get(node, most), most)
            total[node] = total.get(node, 0) + rows.double().sum(dim=0)
            count[node] = count.get(node, 0) + len(rows)
    mean = {node: (total[node] / count[node]).to(low[node].dtype) for node in dims}
    return low, mean, high


def _within(at: At, low: At, high: At) -> At:
    """Constants clipped to the range of the channel's own values."""
    return {node: torch.minimum(torch.maximum(value, low[node]), high[node]) for node, value in at.items()}
