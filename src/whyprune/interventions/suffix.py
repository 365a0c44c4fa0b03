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
from whyprune.structure.batch_place import FIRST, BatchPlace
from whyprune.structure.hints import kept_because
from whyprune.structure.network import Network, Reader
from whyprune.structure.operations import bind, name_of, where
from whyprune.structure.replay import Edit, Replay, Values
from whyprune.structure.state import State
from whyprune.structure.units import Unit

CACHE_BYTES = 256 * 2**20
BLOCK_BYTES = 64 * 2**20
ROWS = 256
CONVOLUTIONS = {"conv1d": F.conv1d, "conv2d": F.conv2d, "conv3d": F.conv3d}


class Value(Protocol):
    """The value v of do(unit := v), as far as what runs again must know it."""

    def change(self, reader: Reader, value: Tensor, unit: Tensor, images: int, /) -> Tensor:
        """The change v - u of the channels `unit` (positions along `reader.dim`), shaped like `value` otherwise.

        `value` holds so many `images`.
        """
        ...


@dataclass(frozen=True)
class Suffix:
    """The units of one group and the operations that run again for each of them.

    Attributes:
        units: intervened on one by one.
        readers: the operations that read any of them.
        loops: the recurrent layers that read any of them inside.
        steps: operations that run again for each unit.
        kept: values to keep of the plain run.
        direct: the only reader, when its output can be updated by the change's own convolution.
    """

    units: tuple[Unit, ...]
    readers: tuple[Reader, ...]
    loops: tuple[Reader, ...]
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
        kept = kept_because(state.network.refusals)
        why = f"; kept whole are {kept}" if kept else ""
        raise InputError(f"there is no unit to measure: see network.refusals for what is kept whole, and why{why}")
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
    readers = tuple(replay.seen(units))
    loops = tuple(replay.loops(units))
    steps = replay.behind({r.node for r in (*readers, *loops)})
    free = replay.network.graph.batch_size is None
    direct = readers[0] if free and len(readers) == 1 and not loops and _is_direct(replay, readers[0], units) else None
    kept = replay.frontier(steps)
    if direct is not None:
        steps = [n for n in steps if n is not direct.node]
        kept = replay.frontier(steps) | {direct.data, direct.node}
    return Suffix(tuple(units), readers, loops, tuple(steps), frozenset(kept), direct)


def _is_direct(replay: Replay, reader: Reader, units: Sequence[Unit]) -> bool:
    """A convolution over all channels that reads each unit once, image by image: linear in the change of a channel."""
    once = all((reader.labels == u.label).sum() == 1 for u in units)
    plain = name_of(reader.node) in CONVOLUTIONS and bind(reader.node)["groups"] == 1
    return once and plain and replay.network.places.found(reader.data) == FIRST


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
    held = next((s for s in value.shape if not isinstance(s, int)), value.shape[0])  # the batch, of the example's size
    total = int(np.prod([int(s) for s in value.shape], dtype=np.int64))
    return total // max(int(held), 1) * value.element_size()


def on_batch(
    replay: Replay,
    dense: Replay,
    batch: Batch,
    plans: Sequence[Suffix],
    outcome: Outcome,
    value: Value,
) -> Iterator[NDArray[np.float32]]:
    """Individual effects (units, images) of one block of units after the other.

    Raises:
        InputError: the network mixes images, so that there is no effect on a single one.
    """
    logits, blocks = rows_on_batch(replay, batch, plans, value)
    target = logits if dense is replay else dense.logits(batch)
    base = outcome(logits, target, batch.labels)
    for changed in blocks:
        yield torch.stack([outcome(c, target, batch.labels) - base for c in changed]).float().numpy()


def rows_on_batch(
    replay: Replay, batch: Batch, plans: Sequence[Suffix], value: Value
) -> tuple[Tensor, Iterator[Sequence[Tensor]]]:
    """The rows (images, F) of a batch, and for one block of units after the other those under do(unit := v), each.

    Raises:
        InputError: the network mixes images, so that there is no effect on a single one.
    """
    replay.network.check_images_apart()
    values = replay.run(batch, keep={n for plan in plans for n in plan.kept})

    def blocks() -> Iterator[Sequence[Tensor]]:
        for plan in plans:
            together = units_together(plan, len(batch)) if _apart(replay, plan) else 1
            for start in range(0, len(plan.units), together):
                block = plan.units[start : start + together]
                yield _intervene(replay, values, plan, block, value, len(batch)).chunk(len(block))

    return replay.read(values), blocks()


def _apart(replay: Replay, plan: Suffix) -> bool:
    """Whether units can be intervened on in one batch: every reader sees a value of its own for every image."""
    network = replay.network
    if plan.loops or network.graph.batch_size is not None:
        return False
    return all(network.batch_place(r.data) is not None for r in plan.readers)


def _intervene(replay: Replay, values: Values, plan: Suffix, units: Sequence[Unit], value: Value, count: int) -> Tensor:
    """Logits (units x images, classes) under do(u := v) for each of `units`, on `count` images."""
    if plan.direct is not None:
        return _update(replay, values, plan, plan.direct, units, value)
    images = torch.arange(count).repeat(len(units))
    repeated = {n: replay.taken(n, values[n], images, count) for n in plan.kept}
    return replay.resume(repeated, plan.steps, edits(replay, plan.readers, [[u] for u in units], value, count))


def _update(
    replay: Replay, values: Values, plan: Suffix, reader: Reader, units: Sequence[Unit], value: Value
) -> Tensor:
    """The same through the one reader's output: its plain output plus the convolution of the change alone.

    Where the channel has the value v already, nothing changes, and nothing is computed.
    """
    logits = replay.read(values)
    logits = logits.repeat(len(units), *[1] * (logits.dim() - 1))
    convolve = CONVOLUTIONS[name_of(reader.node)]
    weight, _ = replay.parameters_of(reader.node)
    bound = bind(reader.node)
    outputs, images, places = [], [], []
    for number, unit in enumerate(units):
        place = replay.positions(reader.labels, [unit])
        change = value.change(reader, values[reader.data], place, len(values[reader.data]))
        moved = change.flatten(1).any(dim=1).nonzero().flatten()
        if len(moved):
            outputs.append(
                convolve(
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
    seen = {n: replay.taken(n, values[n], chosen, len(logits) // len(units)) for n in needed}
    return logits.index_copy(0, torch.cat(places), replay.resume({**seen, reader.node: torch.cat(outputs)}, plan.steps))


def edits(
    replay: Replay, readers: Sequence[Reader], sets: Sequence[Sequence[Unit]], value: Value, images: int
) -> dict[tuple[fx.Node, fx.Node], Edit]:
    """What every reader sees when block k of the batch, of so many images, is under do(all of `sets[k]` := v)."""
    found = {(r.node, r.data): _edit(replay, r, sets, value, images) for r in readers}
    return {**found, **loop_edits(replay, {u.label: u for units in sets for u in units}.values())}


def loop_edits(replay: Replay, units: Iterable[Unit]) -> dict[tuple[fx.Node, fx.Node], Edit]:
    """What recurrent layers see of units inside, for all images at once: nothing, as when they are removed."""
    units = list(units)

    def change(reader: Reader) -> Edit:
        places = replay.positions(reader.labels, units)
        return lambda weight: weight.index_fill(reader.dim, places.to(weight.device), 0)

    return {(r.node, r.data): change(r) for r in replay.loops(units)}


def _edit(replay: Replay, reader: Reader, sets: Sequence[Sequence[Unit]], value: Value, images: int) -> Edit:
    places = [replay.positions(reader.labels, units) for units in sets]

    def edited(block: Tensor, place: Tensor) -> Tensor:
        changed = block.clone()
        if len(place):
            check_numbers(reader, block)
            changed.index_add_(reader.dim, place, value.change(reader, block, place, images))
        return changed

    if len(sets) == 1:
        return lambda tensor: edited(tensor, places[0])
    lie = apart(replay, reader)

    def change(tensor: Tensor) -> Tensor:
        return lie.join([edited(b, p) for b, p in zip(lie.split(tensor, len(sets)), places, strict=True)])

    return change


def check_numbers(reader: Reader, value: Tensor) -> None:
    """Refuses a reader that sees truth values or whole numbers made of channels: there is no v between them.

    Raises:
        InputError: with its place.
    """
    if not value.is_floating_point() and not value.is_complex():
        kind = str(value.dtype).removeprefix("torch.")
        raise InputError(
            f"{name_of(reader.node)} at {where(reader.node)} reads {kind} values made of channels: no "
            "intervention acts there; choose a scorer that looks at weights alone, such as magnitude-l2"
        )


def apart(replay: Replay, reader: Reader) -> BatchPlace:
    """Where images lie in what a reader sees, each with a value of its own.

    Raises:
        InputError: images are mixed there, or the reader sees the same for all of them.
    """
    place = replay.network.batch_place(reader.data)
    if place is None or place.dim == reader.dim:
        how = "the same values for all images" if place is None else "images and channels in one dimension"
        raise InputError(
            f"{name_of(reader.node)} at {where(reader.node)} reads {how}: this scorer changes units image by image; "
            "choose one that intervenes on whole batches, such as exact, or one that looks at weights alone"
        )
    return place


def relative_cost(network: Network, plans: Sequence[Suffix]) -> float:
    """MACs that run per unit and image, in dense forward passes of one image (mean over units)."""
    dense, whole = network.cost.by_operation(), network.cost().macs
    if not whole:
        return 1.0  # nothing to tell parts by: as if all ran
    cost = 0.0
    for plan in plans:
        run: float = sum(dense[n.name] for n in plan.steps)
        if plan.direct is not None:
            run += dense[plan.direct.node.name] / len(plan.direct.labels)
        cost += run * len(plan.units)
    return cost / whole / sum(len(p.units) for p in plans)
