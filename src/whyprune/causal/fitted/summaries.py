"""What each unit carries on each image, as one number: the pooled value that the unit's readers see.

A summary loses what the readers know of places, so summaries are features for explanation models and fitted causal
models, not the network's own variables: no set of them need be causally sufficient.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whyprune.errors import InputError
from whyprune.interventions.suffix import apart, chosen_units
from whyprune.interventions.worlds import ROWS, Masks, Worlds
from whyprune.structure.batch_place import BatchPlace
from whyprune.structure.entry import entered
from whyprune.structure.network import Network, Reader
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.units import Unit

Floats = NDArray[np.float64]
Pool = Literal["mean", "max"]
Where = Literal["all", "first"]
WIDE, MOST_SEEN = 1024, 64
"""Outputs of more numbers than these are features only in part."""


def summaries(
    start: Network | State,
    data: Iterable[Any],
    *,
    pool: Pool = "mean",
    where: Where = "all",
    units: Sequence[Unit | str] | None = None,
) -> Floats:
    """Pooled values of units in the network as it is, image by image.

    Args:
        start: a traced model, or a state of it.
        data: batches; labels are not needed.
        pool: `mean` or `max` over the places (and channels) of the unit.
        where: a residual stream is read in many places, with another value in each. `all`: the mean over the tensors
            that are read; `first`: the first of them in execution order.
        units: which units (default: all that are there).

    Returns:
        (images, units), in the network's order of units.

    Raises:
        InputError: no data, no such unit, or an unknown way to pool.
    """
    return _runs(State.of(start), data, units, (pool,), where)[0]


def features(start: Network | State, data: Iterable[Any], *, units: Sequence[Unit | str] | None = None) -> Floats:
    """What is seen of each image in one forward pass: means and maxima over places of every unit, and the output.

    Returns:
        (images, 2 x units + F), F being the numbers of an image's row: its logits, or at most `MOST_SEEN` random sums
        of its output.

    Raises:
        InputError: no data or no such unit.
    """
    return np.concatenate(_runs(State.of(start), data, units, ("mean", "max"), "all"), axis=1)


def masked_summaries(
    worlds: Worlds, masks: Masks, images: NDArray[np.int64], *, pool: Pool = "mean", where: Where = "all"
) -> tuple[Floats, Tensor]:
    """Pooled values of the units of `worlds` under do(units of the row := v), and the logits of the same runs.

    A unit that is intervened on has the value v; units behind it have what follows from that.

    Args:
        worlds: the network on its images.
        masks: (rows, units), True where a unit is intervened on.
        images: (rows,), the number of each row's image.
        pool: as for `summaries`.
        where: as for `summaries`.

    Returns:
        (rows, units) and (rows, classes).

    Raises:
        InputError: masks and images do not fit each other or the units.
    """
    views = {v.reader.node: v for v in _views(worlds.replay, worlds.units, where)}
    size = worlds.network.graph.batch_size or ROWS
    found, logits = [np.zeros((0, len(worlds.units)))], [worlds.plain[:0]]
    for start in range(0, len(images), size):
        block = slice(start, start + size)
        seen: dict[Any, Tensor] = {}

        def see(reader: Reader, _: Tensor, value: Tensor, rows: int, seen: dict[Any, Tensor] = seen) -> None:
            if reader.node in views:
                seen[reader.node] = _pooled(views[reader.node], value, rows, pool)

        logits.append(worlds.logits(masks[block], images[block], see=see))
        found.append(_together([seen[n] for n in views], list(views.values()))[: len(images[block])])
    return np.concatenate(found), torch.cat(logits)


@dataclass(frozen=True)
class _View:
    """One tensor that is read: where images lie, for each channel the place of its unit, or -1, and who counts here."""

    reader: Reader
    lie: BatchPlace
    columns: Tensor
    counts: Tensor


def _runs(
    state: State, data: Iterable[Any], units: Sequence[Unit | str] | None, pools: Sequence[Pool], where: Where
) -> list[Floats]:
    """Pooled values (images, units) for each way to pool, and what is seen of the output."""
    network, replay = state.network, Replay.of(state)
    network.check_images_apart()
    views = _views(replay, chosen_units(state, units), where)
    found: list[list[Floats]] = [[] for _ in range(len(pools) + 1)]
    size = network.graph.batch_size or ROWS
    for batch in entered(data, network):
        for start in range(0, len(batch), size):
            part = batch[slice(start, start + size)]
            full = part[torch.arange(size) % len(part)] if network.graph.batch_size else part
            values = replay.run(full, keep={v.reader.data for v in views})
            for held, pool in zip(found, pools, strict=False):
                seen = [_pooled(v, values[v.reader.data], len(full), pool) for v in views]
                held.append(_together(seen, views)[: len(part)])
            found[-1].append(_few(replay.read(values)[: len(part)].double()).numpy())
    if not found[-1]:
        raise InputError("there is no data: summaries are taken on images")
    return [np.concatenate(held) for held in found]


def _few(rows: Tensor) -> Tensor:
    """(images, at most `MOST_SEEN`): wide rows by sums with random signs, always the same ones."""
    width = rows.shape[1]
    if width <= WIDE:
        return rows
    drawn = torch.randint(0, 2, (width, MOST_SEEN), generator=torch.Generator().manual_seed(width))
    few: Tensor = rows @ (drawn.to(rows.dtype) * 2 - 1) / width**0.5
    return few


def _views(replay: Replay, units: Sequence[Unit], where: Where) -> list[_View]:
    if where not in ("all", "first"):
        raise InputError(f"summaries are taken where='all' or 'first', not {where!r}")
    place = {u.label: k for k, u in enumerate(units)}
    order = {node: k for k, node in enumerate(replay.order)}
    found: list[_View] = []
    done = torch.zeros(len(units), dtype=torch.bool)
    for reader in sorted(replay.seen(), key=lambda r: (order.get(r.data, -1), order[r.node])):
        labels = [label for label in reader.labels.tolist() if label not in replay.gone]
        columns = torch.tensor([place.get(label, -1) for label in labels], dtype=torch.long)
        counts = torch.zeros(len(units), dtype=torch.bool)
        counts[columns[columns >= 0]] = True
        if where == "first":
            counts &= ~done
        done |= counts
        if counts.any() and all(v.reader.data is not reader.data for v in found):
            found.append(_View(reader, apart(replay, reader), columns, counts))
    return found


def _pooled(view: _View, value: Tensor, images: int, pool: Pool) -> Tensor:
    """(images, units): over places, and over the channels of each unit."""
    if pool not in ("mean", "max"):
        raise InputError(f"summaries pool by 'mean' or 'max', not {pool!r}")
    channels = view.lie.front(value, images).movedim(view.lie.in_front(view.reader.dim), -1)
    channels = channels.reshape(images, -1, channels.shape[-1])
    flat = channels.mean(dim=1) if pool == "mean" else channels.amax(dim=1)
    mine = view.columns >= 0
    places = view.columns[mine].expand(images, -1)
    result = torch.zeros(images, len(view.counts), dtype=flat.dtype)
    return result.scatter_reduce_(1, places, flat[:, mine], "mean" if pool == "mean" else "amax", include_self=False)


def _together(seen: Sequence[Tensor], views: Sequence[_View]) -> Floats:
    """The mean over the tensors in which a unit counts; 0 for a unit that nothing reads."""
    total = torch.stack([value * view.counts for value, view in zip(seen, views, strict=True)]).sum(dim=0)
    number = torch.stack([view.counts for view in views]).sum(dim=0).clamp_min(1)
    return (total / number).double().numpy()
