"""What runs again for one unit, and nothing else: the machine behind exact effects.

* prefix caching: operations before the first reader of a unit run once for all units;
* one channel changed, one channel computed: the first reader is updated by the change's own convolution;
* many interventions in one batch, of at most `BLOCK_BYTES` for each value; batch normalisation folded.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, fx

from whyprune.data.batches import Batch
from whyprune.effects.outcomes import Outcome
from whyprune.errors import InputError
from whyprune.structure.network import Network, Reader
from whyprune.structure.operations import bind, name_of
from whyprune.structure.replay import Edit, Replay, Values
from whyprune.structure.state import State
from whyprune.structure.units import Unit

CACHE_BYTES = 256 * 2**20
BLOCK_BYTES = 64 * 2**20
ROWS = 256


class Value(Protocol):
    """The value v of do(unit := v), as far as what runs again must know it."""

    def change(self, reader: Reader, value: Tensor, unit: Tensor, /) -> Tensor:
        """The change v - u of the channels `unit` (positions along `reader.dim`), shaped like `value` otherwise."""
        ...


@dataclass(frozen=True)
class Suffix:
    """The units of one group and the operations that run again for each of them.

    Attributes:
        units: intervened on one by one.
        readers: the operations that read any of them.
        steps: operations that run again for each unit.
        kept: values to keep of the plain run.
        direct: the only reader, when its output can be updated by the change's own convolution.
    """

    units: tuple[Unit, ...]
    readers: tuple[Reader, ...]
    steps: tuple[fx.Node, ...]
    kept: frozenset[fx.Node]
    direct: Reader | None


def chosen_units(start: Network | State, units: Sequence[Unit | str] | None = None) -> list[Unit]:
    """The units asked for (default: all) that are still there, in the network's order.

    Raises:
        InputError: one is unknown, or there is none.
    """
    state = State.of(start)
    chosen = list(state.units if units is None else state.select(units))
    if not chosen and units:
        raise InputError(f"all {len(list(units))} units that were asked for are gone already from this network")
    if not chosen:
        raise InputError("there is no unit to measure: see network.refusals for what is kept whole, and why")
    return chosen


def reference(state: State, replay: Replay) -> Replay:
    """The original network, to whose outputs outcomes compare: `replay` itself where the state is the original."""
    return replay if _is_original(state) else Replay(state.network)


def plain_cost(state: State) -> float:
    """Cost per image of the runs without intervention: one, and one of the original where the state is another."""
    return 1.0 if _is_original(state) else 2.0


def _is_original(state: State) -> bool:
    return state.is_dense and state.model is state.network.model


def suffixes(replay: Replay, units: Sequence[Unit]) -> list[Suffix]:
    """One for each group of `units`, which come group by group."""
    return [_suffix(replay, list(group)) for _, group in groupby(units, key=lambda u: u.group)]


def _suffix(replay: Replay, units: list[Unit]) -> Suffix:
    readers = tuple(replay.readers(units))
    steps = replay.behind({r.node for r in readers})
    free = replay.network.graph.batch_size is None
    direct = readers[0] if free and len(readers) == 1 and _is_direct(readers[0], units) else None
    kept = replay.frontier(steps)
    if direct is not None:
        steps = [n for n in steps if n is not direct.node]
        kept = replay.frontier(steps) | {direct.data, direct.node}
    return Suffix(tuple(units), readers, tuple(steps), frozenset(kept), direct)


def _is_direct(reader: Reader, units: Sequence[Unit]) -> bool:
    """A convolution over all channels that reads each unit once: linear in the change of one channel."""
    once = all((reader.labels == u.label).sum() == 1 for u in units)
    padding = bind(reader.node).get("padding")
    return (
        once and name_of(reader.node) == "conv2d" and bind(reader.node)["groups"] == 1 and not isinstance(padding, str)
    )


def rebatched(batches: Iterable[Batch], replay: Replay, plans: Sequence[Suffix]) -> Iterator[Batch]:
    """Batches small enough that all kept values fit the cache, channels last: the faster layout on a CPU."""
    fixed = replay.network.graph.batch_size
    per_image = sum(_bytes_per_image(n) for n in {n for plan in plans for n in plan.kept})
    size = fixed or max(1, min(ROWS // 2, CACHE_BYTES // max(per_image, 1)))
    for batch in batches:
        count = -(-len(batch) // size)
        bounds = [len(batch) * k // count for k in range(count + 1)]  # equal parts: none is left with one image
        yield from (batch[slice(start, end)].channels_last() for start, end in pairwise(bounds))


def individual_effects(
    replay: Replay, dense: Replay, batches: Sequence[Batch], units: Sequence[Unit], outcome: Outcome, value: Value
) -> NDArray[np.float32]:
    """Y(do(u := v)) - Y of every unit on every image, (units, images).

    Args:
        replay: the network that is intervened on.
        dense: the network to whose logits the outcome compares.
        batches: of any size.
        units: group by group.
        outcome: fitted.
        value: fitted.
    """
    plans = suffixes(replay, units)
    parts = [
        np.concatenate(list(on_batch(replay, dense, batch, plans, outcome, value)))
        for batch in rebatched(batches, replay, plans)
    ]
    return np.concatenate(parts, axis=1)


def units_together(plan: Suffix, images: int) -> int:
    """How many units to intervene on in one batch of so many images each, at least one."""
    largest = max((_bytes_per_image(n) for n in (*plan.kept, *plan.steps)), default=0)
    return max(1, min(ROWS, BLOCK_BYTES // max(largest, 1)) // images)


def _bytes_per_image(node: fx.Node) -> int:
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or value.dim() == 0:
        return 0
    return int(np.prod([int(s) for s in value.shape[1:]], dtype=np.int64)) * value.element_size()


def on_batch(
    replay: Replay,
    dense: Replay,
    batch: Batch,
    plans: Sequence[Suffix],
    outcome: Outcome,
    value: Value,
) -> Iterator[NDArray[np.float32]]:
    """Individual effects (units, images) of one block of units after the other."""
    values = replay.run(batch, keep={n for plan in plans for n in plan.kept})
    logits = replay.read(values)
    target = logits if dense is replay else dense.logits(batch)
    base = outcome(logits, target, batch.labels)
    for plan in plans:
        together = 1 if replay.network.graph.batch_size else units_together(plan, len(batch))
        for start in range(0, len(plan.units), together):
            block = plan.units[start : start + together]
            changed = _intervene(replay, values, plan, block, value)
            effect = [outcome(c, target, batch.labels) - base for c in changed.chunk(len(block))]
            yield torch.stack(effect).float().numpy()


def _intervene(replay: Replay, values: Values, plan: Suffix, units: Sequence[Unit], value: Value) -> Tensor:
    """Logits (units x images, classes) under do(u := v) for each of `units`."""
    if plan.direct is not None:
        return _update(replay, values, plan, plan.direct, units, value)
    count = len(replay.read(values))
    repeated = {n: rows(n, values[n], torch.arange(count).repeat(len(units)), count) for n in plan.kept}
    return replay.resume(repeated, plan.steps, edits(replay, plan.readers, [[u] for u in units], value))


def _update(
    replay: Replay, values: Values, plan: Suffix, reader: Reader, units: Sequence[Unit], value: Value
) -> Tensor:
    """The same through the one reader's output: its plain output plus the convolution of the change alone.

    Where the channel has the value v already, nothing changes, and nothing is computed.
    """
    logits = replay.read(values).repeat(len(units), 1)
    weight, _ = replay.parameters_of(reader.node)
    bound = bind(reader.node)
    outputs, images, places = [], [], []
    for number, unit in enumerate(units):
        place = replay.positions(reader.labels, [unit])
        change = value.change(reader, values[reader.data], place)
        moved = change.flatten(1).any(dim=1).nonzero().flatten()
        if len(moved):
            outputs.append(
                F.conv2d(
                    change[moved], weight[:, place], None, bound["stride"], bound["padding"], bound["dilation"]
                ).add_(values[reader.node][moved])
            )
            images.append(moved)
            places.append(moved + number * len(change))
    if not outputs:
        return logits
    chosen = torch.cat(images)
    read = {a for step in plan.steps for a in replay.reads(step)} | set(replay.network.counted)
    needed = [n for n in plan.kept if n in read and n is not reader.node]
    seen = {n: rows(n, values[n], chosen, len(logits) // len(units)) for n in needed}
    return logits.index_copy(0, torch.cat(places), replay.resume({**seen, reader.node: torch.cat(outputs)}, plan.steps))


def rows(node: fx.Node, value: Tensor | int, images: Tensor, count: int) -> Tensor | int:
    """A node's value for the images of these numbers, out of `count`.

    Sizes computed from the batch's follow, and so do parts of an image that lie along the batch dimension (windows).
    """
    if isinstance(value, int):
        return value // count * len(images)
    symbolic = [d for d, size in enumerate(node.meta["val"].shape) if not isinstance(size, int)]
    if symbolic and symbolic[0] and value.shape[symbolic[0]] == count:
        return value.index_select(symbolic[0], images)
    if value.dim() and len(value) == count:
        return value[images]
    if value.dim() == 0 or isinstance(node.meta["val"].shape[0], int):
        return value  # it does not depend on the batch
    return value.reshape(count, -1, *value.shape[1:])[images].flatten(0, 1)


def edits(
    replay: Replay, readers: Sequence[Reader], sets: Sequence[Sequence[Unit]], value: Value
) -> dict[tuple[fx.Node, fx.Node], Edit]:
    """What every reader sees when block k of the batch is under do(all of `sets[k]` := v)."""
    return {(r.node, r.data): _edit(replay, r, sets, value) for r in readers}


def _edit(replay: Replay, reader: Reader, sets: Sequence[Sequence[Unit]], value: Value) -> Edit:
    places = [replay.positions(reader.labels, units) for units in sets]

    def change(tensor: Tensor) -> Tensor:
        blocks = []
        for block, place in zip(tensor.chunk(len(sets)), places, strict=True):
            edited = block.clone()
            if len(place):
                edited.index_add_(reader.dim, place, value.change(reader, block, place))
            blocks.append(edited)
        return torch.cat(blocks)

    return change


def relative_cost(network: Network, plans: Sequence[Suffix]) -> float:
    """MACs that run per unit and image, in dense forward passes of one image (mean over units)."""
    dense = network.cost.by_operation()
    cost = 0.0
    for plan in plans:
        run: float = sum(dense[n.name] for n in plan.steps)
        if plan.direct is not None:
            run += dense[plan.direct.node.name] / len(plan.direct.labels)
        cost += run * len(plan.units)
    return cost / network.cost().macs / sum(len(p.units) for p in plans)
