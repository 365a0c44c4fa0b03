"""Response curves: for every group, width -> measured effect of keeping its best units, repaired locally.

A layer that passes every channel on (a depthwise convolution) is no reader here; what reads its channels is.
Groups read by one layer that can be refitted: channels go by elimination and that layer is refitted at every width.
Groups read by many (a residual stream): units go by what their readers would lose, and every reader that can be
refitted sees the best linear prediction of them. What cannot be refitted sees what removal leaves: nothing of them.
Either way the effect is measured on the network's output, on images that the refit has not seen.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from whyprune.causal.response.bench import Bench
from whyprune.causal.response.cases import Case, cases_of, channels_seen, jointly, paths, starts
from whyprune.causal.response.elimination import Elimination
from whyprune.effects.effects import ResponseCurve
from whyprune.effects.outcomes import Outcome
from whyprune.interventions.suffix import edits
from whyprune.interventions.values import Intervention
from whyprune.progress import Progress
from whyprune.repair.targets import RefitTarget
from whyprune.structure.entry import entered
from whyprune.structure.network import Network, Reader
from whyprune.structure.replay import Replay
from whyprune.structure.state import State

KEPT_SHARES = (0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0)
"""The shares of a group's width at which its effect is measured; 0 stands for a single unit."""


def response_curves(
    start: Network | State,
    fit: Iterable[Any],
    measure: Iterable[Any],
    *,
    outcome: Outcome | str | None = None,
    groups: Collection[str] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, ResponseCurve]:
    """Group name -> its response curve, conditional on what is gone.

    Args:
        start: a traced model, or a state of it.
        fit: batches for local refits.
        measure: other batches, on which effects are measured.
        outcome: what harm is (default `LogitShift`, of other outputs `OutputShift`).
        groups: names of the groups to measure (default: all of which two units are there).
        seed: of sampled output places.
        progress: show a progress bar.
    """
    state = State.of(start)
    bench = _Bench(state, measure, outcome)
    replay, batches = bench.replay, list(entered(fit, state.network))
    cases = [case for case in cases_of(replay) if groups is None or case.group.name in groups]
    curves: dict[str, ResponseCurve] = {}
    with Progress(progress) as bars:
        bar = bars.add("Measuring response curves", len(cases))
        for case, path in paths(replay, bench.dense, cases, batches, _kept_counts, seed):
            curves[case.group.name] = bench.single_reader(case, path)
            bars.advance(bar)
        streams = [case for case in cases if case.job is None]
        if streams:
            value = Intervention("carried").fit(replay, batches)
            for case in streams:
                order = jointly(replay, case, value).order
                curves[case.group.name] = bench.many_readers(case, order, value)
                bars.advance(bar)
    return curves


def curve_costs(replay: Replay) -> dict[str, float]:
    """Group -> what its curve costs per measured image, in dense forward passes: one run, and one part per width."""
    macs = replay.network.cost.by_operation()
    total = max(sum(macs.values()), 1)

    def behind(case: Case) -> float:
        return sum(macs[node.name] for node in replay.behind(starts(replay, case))) / total

    return {case.group.name: 1 + (len(_kept_counts(case)) - 1) * behind(case) for case in cases_of(replay)}


def _kept_counts(case: Case) -> list[int]:
    """Kept counts of removable units, descending, the full width first."""
    full = len(case.units)
    return sorted({full, *(max(1, round(full * share)) for share in KEPT_SHARES)}, reverse=True)


@dataclass(frozen=True)
class _Repairable:
    """The best linear prediction where a refit can do as much; what removal leaves everywhere else.

    Statistics over channels have no weights to refit, and are left to `carried`.
    """

    carried: Intervention
    refitted: frozenset[fx.Node]

    def change(self, reader: Reader, value: Tensor, unit: Tensor, images: int) -> Tensor:
        """The change v - u of the channels `unit`."""
        if reader.node in self.refitted or reader.statistics:
            return self.carried.change(reader, value, unit, images)
        return -value.index_select(reader.dim, unit)


class _Bench(Bench):
    """Measures harm behind changed readers, from values kept of one plain run."""

    def single_reader(self, case: Case, path: Elimination) -> ResponseCurve:
        """The curve of a group that one layer reads."""
        assert case.job is not None
        reader = case.readers[0]
        steps = [n for n in self.replay.behind({reader.node}) if n is not reader.node]
        keep = self.replay.frontier(steps) | {reader.data}
        places = [self.replay.positions(reader.labels, [u]) for u in case.units]
        always = _rest(places, channels_seen(self.replay, reader))
        counts = _kept_counts(case)
        harms: list[list[Tensor]] = [[] for _ in counts[1:]]
        for index, batch in enumerate(self.batches):
            values = self.replay.run(batch, keep=keep)
            for harm, count in zip(harms, counts[1:], strict=True):
                kept, weight, bias = path.weights[count]
                channels = torch.cat([places[c] for c in kept] + [always]).sort().values
                seen = values[reader.data].index_select(reader.dim, channels)
                out = self.replay.apply(reader.node, seen, _shaped(self.replay, case.job, weight), bias)
                harm.append(self.harm(index, self.replay.resume({**values, reader.node: out}, steps)))
        order = [case.units[c].name for c in path.order]
        return self._curve(case, order, counts, harms)

    def many_readers(self, case: Case, order: Sequence[int], value: Intervention) -> ResponseCurve:
        """The curve of a group that several layers read."""
        ranked = [case.units[k] for k in order]
        steps = self.replay.behind(starts(self.replay, case))
        keep = self.replay.frontier(steps)
        counts = _kept_counts(case)
        harms: list[list[Tensor]] = [[] for _ in counts[1:]]
        for index, batch in enumerate(self.batches):
            values = self.replay.run(batch, keep=keep)
            for harm, count in zip(harms, counts[1:], strict=True):
                gone = ranked[: len(ranked) - count]
                change = edits(self.replay, case.readers, [gone], _Repairable(value, case.refitted), len(batch))
                harm.append(self.harm(index, self.replay.resume(values, steps, change)))
        return self._curve(case, [u.name for u in ranked[: len(ranked) - counts[-1]]], counts, harms)

    def _curve(
        self, case: Case, order: Sequence[str], counts: Sequence[int], harms: Sequence[Sequence[Tensor]]
    ) -> ResponseCurve:
        samples = [torch.cat(list(h)).double().numpy() for h in harms]
        return ResponseCurve(
            group=case.group.name,
            order=tuple(order),
            removed=np.array([counts[0] - c for c in counts], dtype=np.int64),
            effect=np.array([0.0, *(s.mean() for s in samples)]),
            standard_error=np.array([0.0, *(s.std(ddof=1) / np.sqrt(len(s)) for s in samples)]),
        )


def _rest(places: Sequence[Tensor], channels: int) -> Tensor:
    stays = torch.ones(channels, dtype=torch.bool)
    stays[torch.cat(list(places))] = False
    return stays.nonzero().flatten()


def _shaped(replay: Replay, job: RefitTarget, weight: Tensor) -> Tensor:
    """Refitted weights (O, D) of fewer channels in the shape that the reader takes."""
    filters = job.layout.filters(replay.parameters_of(job.node)[0])
    return job.layout.weight(weight.reshape(len(filters), -1, *filters.shape[2:]))
