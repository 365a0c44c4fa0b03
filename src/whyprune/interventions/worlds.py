"""The network's possible worlds: what the output is under do(S := v), for any set S of units, image by image.

A trained network is a deterministic structural causal model, so any interventional or counterfactual question about
its units is answered by running it (the input is the only exogenous variable, and it stays as it is). `Worlds` answers
many such questions in one batch, one row for each pair of a set and an image, and counts what the answers cost.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from whyprune.data.batches import Batch, joined
from whyprune.effects.outcomes import Outcome, judged
from whyprune.effects.output_shift import check_no_nan
from whyprune.errors import InputError
from whyprune.interventions.suffix import apart, check_numbers, chosen_units, edits, loop_edits, plain_cost, reference
from whyprune.interventions.values import Intervention, checked
from whyprune.structure.entry import entered
from whyprune.structure.network import Network, Reader
from whyprune.structure.replay import Edit, Replay
from whyprune.structure.state import State
from whyprune.structure.units import Unit

Masks = NDArray[np.bool_]
Floats = NDArray[np.float64]
See = Callable[[Reader, Tensor, Tensor, int], None]
ROWS = 256


class Worlds:
    """The network on given images, under interventions on any set of its units.

    Attributes:
        state: the network as pruned so far.
        network: the traced model, without what lies in blocks that are gone.
        units: the units that masks speak of, in this order.
        inputs: all images in one batch, with labels where the data has them.
        dense: the original network's logits, (images, classes).
        plain: the logits without intervention, (images, classes): those of `dense`, where nothing is removed.
        base: the outcome without intervention, (images,).
        outcome: fitted to the dense logits.
        value: the intervention, fitted to the images.
        forward_passes: what all answers cost so far, in dense forward passes of one image.
    """

    def __init__(
        self,
        start: Network | State,
        data: Iterable[Any],
        *,
        outcome: Outcome | str | None = None,
        intervention: str | None = None,
        units: Sequence[Unit | str] | None = None,
    ) -> None:
        """Runs the network once on all images, and the original too where something is removed.

        Args:
            start: a traced model, or a state of it.
            data: batches; labels only if the outcome needs them.
            outcome: what harm is (default `LogitShift`, of other outputs `OutputShift`).
            intervention: `zero` (default), `mean`, `optimal`, `closed-form`, `resample` or `carried`.
            units: which units masks speak of (default: all that are still there).

        Raises:
            InputError: no data, no such unit, missing labels, an unknown name, or a network that mixes images.
        """
        state, asked = judged(start, outcome)
        self.state = state
        self.units = tuple(chosen_units(state, units))
        self.inputs = joined(list(entered(data, state.network)))
        self._replay = Replay.of(state)
        self.network = self._replay.network
        self.network.check_images_apart()
        blocks = list(self._blocks(np.arange(len(self.inputs))))
        self.plain = torch.cat([self._replay.logits(self._images(b))[: len(b)] for b in blocks])
        dense, self.dense = reference(state, self._replay), self.plain
        if dense is not self._replay:
            self.dense = torch.cat([dense.logits(self._images(b))[: len(b)] for b in blocks])
        check_no_nan(self.dense)
        self.outcome = asked.fit(self.dense)
        batches = [self._images(b) for b in blocks]
        self.value = Intervention(checked(intervention)).fit(self._replay, batches, self.outcome, self.units)
        self.base = self._harm(self.plain, np.arange(len(self.inputs)))
        self.forward_passes = plain_cost(state) * len(self.inputs) + self.value.forward_passes
        self._macs = self.network.cost.by_operation()
        self._columns = {(reader.node, reader.data): self._column(reader) for reader in self.network.readers}

    @property
    def estimand(self) -> str:
        """What one more intervention on its own does: a `single` effect, or a `conditional` one."""
        return "conditional" if self.state.removed else "single"

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the units that are gone already."""
        return tuple(unit.name for unit in self.state.removed)

    @property
    def replay(self) -> Replay:
        """The network that is asked, as it runs."""
        return self._replay

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.inputs)

    def effects(self, masks: Masks, images: NDArray[np.int64]) -> Floats:
        """Y(do(units of the row := v)) - Y on the row's image.

        Args:
            masks: (rows, units), True where a unit is intervened on.
            images: (rows,), the number of each row's image.

        Returns:
            (rows,): individual effects, higher meaning more harm.
        """
        return self._harm(self.logits(masks, images), images) - self.base[images]

    def logits(self, masks: Masks, images: NDArray[np.int64], *, see: See | None = None) -> Tensor:
        """Logits (rows, classes) under the row's intervention on the row's image.

        Args:
            masks: (rows, units), True where a unit is intervened on.
            images: (rows,), the number of each row's image.
            see: called for every block of rows with each reader, the tensor as it was computed, the same as the reader
                sees it under the intervention, and the number of rows in it.

        Raises:
            InputError: masks and images do not fit each other or the units.
        """
        masks, images = np.asarray(masks, dtype=bool), np.asarray(images, dtype=np.int64)
        if masks.shape != (len(images), len(self.units)):
            raise InputError(f"masks of shape {masks.shape} for {len(images)} rows and {len(self.units)} units")
        found = [self._run(masks[block], images[block], see) for block in self._blocks(np.arange(len(images)))]
        return torch.cat(found) if found else self.plain[:0]

    def joint(self, mask: NDArray[np.bool_], images: NDArray[np.int64] | None = None) -> Floats:
        """Individual joint effects of one set, on the images given (default: all)."""
        chosen = np.arange(self.images) if images is None else images
        return self.effects(np.broadcast_to(mask, (len(chosen), len(self.units))), chosen)

    def harm(self, logits: Tensor, images: NDArray[np.int64]) -> Floats:
        """The outcome of logits (rows, classes) that were got on these images, (rows,)."""
        return self._harm(logits, images)

    def _run(self, masks: Masks, images: NDArray[np.int64], see: See | None = None) -> Tensor:
        """Everything in front of the first reader of a masked unit runs once for each image among the rows."""
        touched = np.flatnonzero(masks.any(axis=0))
        readers = [r for r in self._replay.seen() if see or np.isin(self._columns[r.node, r.data], touched).any()]
        loops = self._replay.loops(self.units[k] for k in touched)
        if loops and len(alike := self._alike(loops, masks)) > 1:  # weights are the same for all rows of a run
            found = torch.empty(len(masks), self.plain.shape[1], dtype=self.plain.dtype)
            for rows in alike:
                found[rows] = self._run(masks[rows], images[rows], see)
            return found
        if len(masks) > 1 and not self._in_one_run(readers, masks):
            return torch.cat([self._run(masks[k : k + 1], images[k : k + 1], see) for k in range(len(masks))])
        steps = self._replay.behind({r.node for r in (*readers, *loops)})
        unique, inverse = np.unique(images, return_inverse=True)
        batch, count = self._images(unique), len(unique)
        values = self._replay.before(batch, steps)
        size = self.network.graph.batch_size
        places = torch.from_numpy(np.resize(inverse, size) if size else inverse)
        masks = masks[np.resize(np.arange(len(masks)), size)] if size else masks
        held = max(count, size or 0)
        kept = {n: self._replay.taken(n, values[n], places, held) for n in self._replay.frontier(steps)}
        share = sum(self._macs[n.name] for n in steps) / max(sum(self._macs.values()), 1)
        self.forward_passes += count * (1 - share) + len(images) * share
        changes = self._edits(readers, masks, self._donors(readers, unique, places))
        if see is not None:
            changes = {(r.node, r.data): _watched(changes[r.node, r.data], r, len(masks), see) for r in readers}
        return self._replay.resume(kept, steps, changes)[: len(images)]

    def _alike(self, loops: Sequence[Reader], masks: Masks) -> list[NDArray[np.int64]]:
        """The numbers of rows, those together in which recurrent layers lose the same units inside."""
        inside = np.isin([u.label for u in self.units], np.concatenate([r.labels for r in loops]))
        _, pattern = np.unique(masks[:, inside], axis=0, return_inverse=True)
        return [np.flatnonzero(pattern == k) for k in range(int(pattern.max()) + 1)]

    def _in_one_run(self, readers: Sequence[Reader], masks: Masks) -> bool:
        """Whether rows can differ: every reader sees a value of its own in every row, or the rows are all alike."""
        each = all(self.network.batch_place(r.data) is not None for r in readers)
        return each or bool((masks == masks[0]).all())

    def _donors(self, readers: Sequence[Reader], unique: NDArray[np.int64], places: Tensor) -> dict[fx.Node, Tensor]:
        """What every reader sees of the image before in the data, row by row, where units take its value."""
        if self.value.value != "resample":
            return {}
        if self.images < 2:
            raise InputError("intervention 'resample' takes another image's value: give at least 2 images")
        values = self._replay.run(self._images((unique - 1) % self.images), keep={r.data for r in readers})
        self.forward_passes += len(unique)
        held = max(len(unique), self.network.graph.batch_size or 0)
        found = {r.data: self._replay.taken(r.data, values[r.data], places, held) for r in readers}
        return {node: value for node, value in found.items() if isinstance(value, Tensor)}

    def _edits(
        self, readers: Sequence[Reader], masks: Masks, donors: dict[fx.Node, Tensor]
    ) -> dict[tuple[fx.Node, fx.Node], Edit]:
        if self.value.value == "carried":  # what carries a unit differs from set to set
            sets = [[self.units[k] for k in np.flatnonzero(mask)] for mask in masks]
            return edits(self._replay, readers, sets, self.value, 1)
        found = {(r.node, r.data): self._edit(r, masks, donors.get(r.data)) for r in readers}
        return {**found, **loop_edits(self._replay, [self.units[k] for k in np.flatnonzero(masks[0])])}

    def _edit(self, reader: Reader, masks: Masks, donor: Tensor | None) -> Edit:
        columns = self._columns[reader.node, reader.data]
        here = np.where(columns >= 0, masks[:, columns], False)
        places = torch.from_numpy(np.flatnonzero(here.any(axis=0)))
        chosen = torch.from_numpy(here)[:, places]
        lie = self.network.batch_place(reader.data)
        if len(masks) > 1 and not (masks == masks[0]).all():
            lie = apart(self._replay, reader)

        def change(tensor: Tensor) -> Tensor:
            if not len(places):
                return tensor
            check_numbers(reader, tensor)
            shape = [len(places) if d == reader.dim else 1 for d in range(tensor.dim())]
            share = chosen[0].reshape(shape) if lie is None else lie.spread(chosen, tensor, reader.dim)
            share = share.to(tensor.dtype)
            if donor is None:
                moved = self.value.change(reader, tensor, places, len(chosen))
            else:
                moved = (donor - tensor).index_select(reader.dim, places)
            return tensor.index_add(reader.dim, places, moved * share)

        return change

    def _column(self, reader: Reader) -> NDArray[np.int64]:
        """For every channel that a reader sees: the place of its unit among `units`, or -1."""
        place = {u.label: k for k, u in enumerate(self.units)}
        labels = [label for label in reader.labels.tolist() if label not in self._replay.gone]
        return np.array([place.get(label, -1) for label in labels], dtype=np.int64)

    def _harm(self, logits: Tensor, images: NDArray[np.int64]) -> Floats:
        index = torch.from_numpy(images)
        labels = None if self.inputs.labels is None else self.inputs.labels[index]
        found: Floats = self.outcome(logits, self.dense[index], labels).double().numpy()
        return found

    def _images(self, numbers: NDArray[np.int64]) -> Batch:
        """The images of these numbers; repeated where the network runs on one batch size only."""
        size = self.network.graph.batch_size
        return self.inputs[torch.from_numpy(np.resize(numbers, size) if size else numbers)]

    def _blocks(self, numbers: NDArray[np.int64]) -> Iterable[NDArray[np.int64]]:
        size = self.network.graph.batch_size or ROWS
        return (numbers[start : start + size] for start in range(0, len(numbers), size))


def _watched(edit: Edit, reader: Reader, rows: int, see: See) -> Edit:
    def change(tensor: Tensor) -> Tensor:
        changed = edit(tensor)
        see(reader, tensor, changed, rows)
        return changed

    return change
