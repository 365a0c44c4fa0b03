"""Which units of a group its readers can do without, and in what order: elimination, group by group.

Groups that one layer reads which can be refitted go by that layer's own least squares towards the dense network's
stream; groups that many layers read (a residual stream) by what all of them would lose of their outputs' variance.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx

from whyprune.causal.response.elimination import Elimination, Reading, eliminate, joint_elimination
from whyprune.data.batches import Batch
from whyprune.interventions.values import RIDGE, Intervention
from whyprune.repair.gather import rows_for
from whyprune.repair.lockstep import StreamedActivations, schedule
from whyprune.repair.rows import Layout, layout_of
from whyprune.repair.targets import RefitTarget, targets
from whyprune.structure.network import Reader
from whyprune.structure.replay import Replay
from whyprune.structure.units import Group, Unit


@dataclass(frozen=True)
class Case:
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


def cases_of(replay: Replay, fewest: int = 2) -> list[Case]:
    """The groups of which at least `fewest` units are there, and read."""
    order = schedule(replay)
    jobs = {job.node: job for job in targets(replay, order)}
    cases = []
    for group in replay.network.groups:
        units = tuple(u for u in group.units if u.label not in replay.gone)
        if len(units) < fewest:
            continue
        every = replay.readers(units)
        readers = tuple(r for r in every if not _passes_on(replay, r, units)) or tuple(every)
        alone = len(readers) == 1 and not _passes_on(replay, readers[0], units) and not replay.loops(units)
        job = jobs.get(readers[0].node) if alone else None
        if readers:
            refitted = frozenset(reader.node for reader in readers if reader.node in jobs)
            cases.append(Case(group, units, readers, job, refitted))
    return cases


def starts(replay: Replay, case: Case) -> set[fx.Node]:
    """The first operations that run again for a group: its readers, and recurrent layers that read it inside."""
    return {r.node for r in (*case.readers, *replay.loops(case.units))}


def _passes_on(replay: Replay, reader: Reader, units: Sequence[Unit]) -> bool:
    """Whether a convolution has groups of which whole ones go: it hands each unit on, and its next reader sees that.

    In all other convolutions with groups a unit lies at the same places of every group.
    """
    groups = replay.groups_of(reader.node)
    if groups == 1:
        return False
    size = channels_seen(replay, reader) // groups
    places = [replay.positions(reader.labels, [u]) for u in units]
    return not all(len(p) % groups == 0 and torch.equal(p % size, p[: len(p) // groups].repeat(groups)) for p in places)


def channels_seen(replay: Replay, reader: Reader) -> int:
    """How many channels a reader sees."""
    return int((~np.isin(reader.labels, list(replay.gone))).sum())


def paths(
    replay: Replay,
    original: Replay,
    cases: Sequence[Case],
    batches: Sequence[Batch],
    kept: Callable[[Case], Collection[int]],
    seed: int,
) -> Iterator[tuple[Case, Elimination]]:
    """Runs dense and pruned in lock-step and eliminates channels at every group with one reader.

    Args:
        replay: the network as it is.
        original: the dense one, whose stream readers are refitted to.
        cases: the groups; those with many readers are left out.
        batches: the images.
        kept: down to how many units, and at which counts weights are wanted.
        seed: of sampled output places.
    """
    order = schedule(replay)
    by_node = {case.job.node: case for case in cases if case.job is not None}
    jobs = [case.job for node in order for case in [by_node.get(node)] if case is not None and case.job is not None]
    generator = torch.Generator().manual_seed(seed)
    dense = StreamedActivations(original, batches, schedule(original), pinned={j.aim for j in jobs})
    pruned = StreamedActivations(replay, batches, order)
    for job in jobs:
        case = by_node[job.node]
        weight, _ = replay.parameters_of(job.node)
        x, target, offset = rows_for(dense, pruned, job, job.layout.matrix(weight).shape[-1], generator)
        aim = target if offset is None else target - offset
        yield case, eliminate(x, aim, _features(replay, case, job.layout, weight), kept(case))


def _features(replay: Replay, case: Case, how: Layout, weight: Tensor) -> list[Tensor]:
    """Feature indices of every unit among the rows of the reader, or of one of its groups."""
    kernel = math.prod(weight.shape[2:])
    places = [replay.positions(case.readers[0].labels, [u]) for u in case.units]
    first = [p[: len(p) // how.groups] for p in places]
    return [(p[:, None] * kernel + torch.arange(kernel)).flatten() for p in first]


def jointly(replay: Replay, case: Case, value: Intervention) -> Elimination:
    """Units go that several layers read; by their energy where no layer has a weight for them."""
    weighted = [r for r in case.readers if r.affine or r.node in case.refitted]
    return joint_elimination([_reading(replay, r, case, value) for r in weighted or case.readers])


def _reading(replay: Replay, reader: Reader, case: Case, value: Intervention) -> Reading:
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
