"""Response curves: for every group, width -> measured effect of keeping its best units, repaired locally.

A layer that passes every channel on (a depthwise convolution) is no reader here; what reads its channels is.
Groups read by one layer that can be refitted: channels go by elimination and that layer is refitted at every width.
Groups read by many (a residual stream): units go by what their readers would lose, and every reader that can be
refitted sees the best linear prediction of them. What cannot be refitted sees what removal leaves: nothing of them.
Either way the effect is measured on the network's output, on images that the refit has not seen.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from whyprune.causal.response.bench import Bench
from whyprune.causal.response.elimination import Elimination, Reading, eliminate, eliminate_jointly
from whyprune.data.batches import Batch
from whyprune.effects.effects import ResponseCurve
from whyprune.effects.outcomes import Outcome
from whyprune.interventions.suffix import edits
from whyprune.interventions.values import RIDGE, Intervention
from whyprune.progress import Progress
from whyprune.repair.gather import rows_for
from whyprune.repair.lockstep import StreamedActivations, schedule
from whyprune.repair.rows import Layout, layout_of
from whyprune.repair.targets import RefitTarget, targets
from whyprune.structure.entry import entered
from whyprune.structure.network import Network, Reader
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.units import Group, Unit

KEPT_SHARES = (0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0)
"""The shares of a group's width at which its effect is measured; 0 stands for a single unit."""


@dataclass(frozen=True)
class _Case:
    """One group with the units it still has.

    Attributes:
        group: the group.
        units: those that are there.
        readers: what reads any of them, and does not just pass it on.
        job: the refit of the one reader; None where there are more, or where it cannot be refitted.
        refitted: the readers that can be.
    """

    group: Group
    units: tuple[Unit, ...]
    readers: tuple[Reader, ...]
    job: RefitTarget | None
    refitted: frozenset[fx.Node]


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
    cases = [case for case in _cases(replay) if groups is None or case.group.name in groups]
    curves: dict[str, ResponseCurve] = {}
    with Progress(progress) as bars:
        bar = bars.add("Measuring response curves", len(cases))
        for case, path in _paths(bench, cases, batches, seed):
            curves[case.group.name] = bench.single_reader(case, path)
            bars.advance(bar)
        streams = [case for case in cases if case.job is None]
        if streams:
            value = Intervention("carried").fit(replay, batches)
            for case in streams:
                order = _jointly(replay, case, value)
                curves[case.group.name] = bench.many_readers(case, order, value)
                bars.advance(bar)
    return curves


def curve_costs(replay: Replay) -> dict[str, float]:
    """Group -> what its curve costs per measured image, in dense forward passes: one run, and one part per width."""
    macs = replay.network.cost.by_operation()
    total = max(sum(macs.values()), 1)

    def behind(case: _Case) -> float:
        return sum(macs[node.name] for node in replay.behind(_starts(replay, case))) / total

    return {case.group.name: 1 + (len(_kept_counts(case)) - 1) * behind(case) for case in _cases(replay)}


def _cases(replay: Replay) -> list[_Case]:
    order = schedule(replay)
    jobs = {job.node: job for job in targets(replay, order)}
    cases = []
    for group in replay.network.groups:
        units = tuple(u for u in group.units if u.label not in replay.gone)
        if len(units) < 2:
            continue
        every = replay.readers(units)
        readers = tuple(r for r in every if not _passes_on(replay, r, units)) or tuple(every)
        alone = len(readers) == 1 and not _passes_on(replay, readers[0], units) and not replay.loops(units)
        job = jobs.get(readers[0].node) if alone else None
        if readers:
            refitted = frozenset(reader.node for reader in readers if reader.node in jobs)
            cases.append(_Case(group, units, readers, job, refitted))
    return cases


def _starts(replay: Replay, case: _Case) -> set[fx.Node]:
    """The first operations that run again for a group: its readers, and recurrent layers that read it inside."""
    return {r.node for r in (*case.readers, *replay.loops(case.units))}


def _passes_on(replay: Replay, reader: Reader, units: Sequence[Unit]) -> bool:
    """Whether a convolution has groups of which whole ones go: it hands each unit on, and its next reader sees that.

    In all other convolutions with groups a unit lies at the same places of every group.
    """
    groups = replay.groups_of(reader.node)
    if groups == 1:
        return False
    size = _channels(replay, reader) // groups
    places = [replay.positions(reader.labels, [u]) for u in units]
    return not all(len(p) % groups == 0 and torch.equal(p % size, p[: len(p) // groups].repeat(groups)) for p in places)


def _channels(replay: Replay, reader: Reader) -> int:
    """How many channels a reader sees."""
    return int((~np.isin(reader.labels, list(replay.gone))).sum())


def _kept_counts(case: _Case) -> list[int]:
    """Kept counts of removable units, descending, the full width first."""
    full = len(case.units)
    return sorted({full, *(max(1, round(full * share)) for share in KEPT_SHARES)}, reverse=True)


def _paths(
    bench: Bench, cases: Sequence[_Case], batches: Sequence[Batch], seed: int
) -> Iterable[tuple[_Case, Elimination]]:
    """Runs dense and pruned in lock-step and eliminates channels at every group with one reader."""
    replay = bench.replay
    order = schedule(replay)
    by_node = {case.job.node: case for case in cases if case.job is not None}
    jobs = [case.job for node in order for case in [by_node.get(node)] if case is not None and case.job is not None]
    generator = torch.Generator().manual_seed(seed)
    dense = StreamedActivations(bench.dense, batches, schedule(bench.dense), pinned={j.aim for j in jobs})
    pruned = StreamedActivations(replay, batches, order)
    for job in jobs:
        case = by_node[job.node]
        weight, _ = replay.parameters_of(job.node)
        x, target, offset = rows_for(dense, pruned, job, job.layout.matrix(weight).shape[-1], generator)
        aim = target if offset is None else target - offset
        yield case, eliminate(x, aim, _features(replay, case, job.layout, weight), _kept_counts(case))


def _features(replay: Replay, case: _Case, how: Layout, weight: Tensor) -> list[Tensor]:
    """Feature indices of every unit among the rows of the reader, or of one of its groups."""
    kernel = math.prod(weight.shape[2:])
    places = [replay.positions(case.readers[0].labels, [u]) for u in case.units]
    first = [p[: len(p) // how.groups] for p in places]
    return [(p[:, None] * kernel + torch.arange(kernel)).flatten() for p in first]


def _jointly(replay: Replay, case: _Case, value: Intervention) -> Sequence[int]:
    """The order in which units go that several layers read; by their energy where no layer has a weight for them."""
    weighted = [r for r in case.readers if r.affine or r.node in case.refitted]
    return eliminate_jointly([_reading(replay, r, case, value) for r in weighted or case.readers])


def _reading(replay: Replay, reader: Reader, case: _Case, value: Intervention) -> Reading:
    """What a reader would lose with each unit: a share of its output's variance, channels taken place by place.

    The channels that stay carry what they can where the reader is refitted, and nothing where it is not.
    """
    moments = value.moments[reader.data]
    channels = len(moments.total)
    weighted = reader.affine or reader.node in case.refitted
    products = _products(replay, reader, channels) if weighted else torch.eye(channels, dtype=torch.float64)
    spectrum, basis = torch.linalg.eigh(products)
    alone = (moments.products / moments.count).diagonal().diag()
    carried = moments.covariance if reader.node in case.refitted else alone
    ridge = RIDGE * carried.diagonal().mean().clamp_min(1e-12)
    return Reading(
        inverse=torch.linalg.inv(carried + ridge * torch.eye(len(carried), dtype=carried.dtype)),
        weights=basis * spectrum.clamp_min(0).sqrt(),
        units=torch.stack([replay.positions(reader.labels, [unit]) for unit in case.units]),
        scale=max(float((products.diagonal() * carried.diagonal()).sum()), 1e-30),
    )


def _products(replay: Replay, reader: Reader, channels: int) -> Tensor:
    """Of every two channels that a reader sees the products of their weights, summed, (C, C)."""
    weight, _ = replay.parameters_of(reader.node)
    how = layout_of(reader.node, replay.groups_of(reader.node))
    filters = how.filters(weight).double()
    filters = filters.reshape(how.groups, -1, channels // how.groups, math.prod(filters.shape[2:]))
    found: Tensor = torch.block_diag(*torch.einsum("goik,gojk->gij", filters, filters))  # type: ignore[no-untyped-call]
    return found


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

    def single_reader(self, case: _Case, path: Elimination) -> ResponseCurve:
        """The curve of a group that one layer reads."""
        assert case.job is not None
        reader = case.readers[0]
        steps = [n for n in self.replay.behind({reader.node}) if n is not reader.node]
        keep = self.replay.frontier(steps) | {reader.data}
        places = [self.replay.positions(reader.labels, [u]) for u in case.units]
        always = _rest(places, _channels(self.replay, reader))
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

    def many_readers(self, case: _Case, order: Sequence[int], value: Intervention) -> ResponseCurve:
        """The curve of a group that several layers read."""
        ranked = [case.units[k] for k in order]
        steps = self.replay.behind(_starts(self.replay, case))
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
        self, case: _Case, order: Sequence[str], counts: Sequence[int], harms: Sequence[Sequence[Tensor]]
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
