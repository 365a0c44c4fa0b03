"""The door for data: every batch is matched with what the network was traced on, and new sizes are tried out once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from whyprune.data.batches import Batch
from whyprune.data.expected import expected_batch, shown
from whyprune.data.opened import length_of, opened, read
from whyprune.data.outputs import tensors_of
from whyprune.errors import InputError
from whyprune.structure.capture import first_line
from whyprune.structure.network import Network
from whyprune.structure.replay import Replay

ALLOWED = 1e-3
"""Of the largest output: rounding stays far below it, and operations that hold for one size are far above it."""
OTHER_SIZES = "{} holds inputs of other sizes than the example inputs: all costs are counted at the example's size."
Sizes = tuple[tuple[int, ...], ...]


@dataclass
class Entered:
    """Data as batches that fit a network, every time it is read.

    Attributes:
        network: the traced network.
        batches: what is read.
        what: whose data it is, for messages.
        replayed: whether the traced operations run on it; else only the model's own code has to.
        whole: refuse batches of another size than the only one on which the network runs, where there is such a one.
        notes: what was done to make it fit, in sentences.
    """

    network: Network
    batches: Iterable[Any]
    what: str
    replayed: bool = True
    whole: bool = False
    notes: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Batch]:
        example = self.network.example
        for raw in read(self.batches, self.what):
            batch = expected_batch(raw, example, self.what, self.notes)
            if _sizes(batch) != _sizes(example):
                _check_sizes(self.network, batch, self.what, self.replayed)
                self._note(OTHER_SIZES.format(self.what[:1].upper() + self.what[1:]))
            size = self.network.graph.batch_size
            if self.whole and size not in (None, len(batch)):
                raise InputError(_other_batch(size, len(batch), self.what))
            yield replace(batch, whole=True) if self.replayed and size == len(batch) else batch

    def __len__(self) -> int:
        if (known := length_of(self.batches)) is None:
            raise TypeError(f"how many batches {self.what} has is not known before it is read")
        return known

    def _note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)


def entered(
    data: Any, network: Network, what: str = "the data", *, replayed: bool = True, whole: bool = False
) -> Entered:
    """Data in any form as batches for a traced network; each is checked as it is read.

    Args:
        data: a `DataLoader`, batches, one batch, a generator, or a dataset of single samples.
        network: a traced network.
        what: whose data it is, for messages.
        replayed: whether the traced operations run on it; False where only models do, as for an accuracy.
        whole: of a network that runs on batches of one size alone, refuse others; else who reads them sees to it.

    Raises:
        InputError: it is no data; while it is read, a batch does not fit what the network was traced on.
    """
    if isinstance(data, Entered) and data.network.graph is network.graph:
        return data
    batches, note = opened(data, network.example, what)
    return Entered(network, batches, what, replayed, whole, [note] if note else [])


def _other_batch(size: int | None, given: int, what: str) -> str:
    return (
        f"this model only runs on batches of {size}, not of {given}, as a batch of {what} is: give batches of {size} "
        "(a DataLoader with drop_last=True leaves out a smaller last one), or take the number out of the model's code, "
        "such as x.flatten(1) for x.view(8, -1), and every size will do"
    )


def _sizes(batch: Batch) -> Sizes:
    return tuple(tuple(t.shape[1:]) for t in batch.tensors())


def _check_sizes(network: Network, batch: Batch, what: str, replayed: bool) -> None:
    """Refuses a size at which the traced operations do not give what the model gives; tried once for every size."""
    key, tried = (_sizes(batch), replayed), network.graph.sizes_tried
    if key not in tried:
        tried[key] = _wrong_at(network, batch, replayed)
    if tried[key]:
        raise InputError(_said(network.example, batch, what, tried[key]))


def _wrong_at(network: Network, batch: Batch, replayed: bool) -> str:
    """What is wrong at the batch's sizes: the model itself does not run, or its traced operations do not follow."""
    rows = network.graph.batch_size or 2
    few = batch[torch.arange(rows, device=batch.tensors()[0].device) % len(batch)]
    try:
        with torch.inference_mode():
            expected = tensors_of(few.call(network.model))
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything on a size that it is not made for
        return f"the model does not run on it ({first_line(error)})"
    if not replayed:
        return ""
    try:
        replay = Replay(network)
        found = tensors_of(replay.output(replay.run(few, keep=())))
    except (RuntimeError, IndexError, ValueError, TypeError):
        return "the traced operations hold for the traced size only"
    alike = len(found) == len(expected) and all(map(_agree, found, expected))
    return "" if alike else "the traced operations give something else there than the model's own code"


def _agree(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    return torch.allclose(found.double(), expected.double(), rtol=0, atol=ALLOWED * max(scale, 1.0), equal_nan=True)


def _said(example: Batch, batch: Batch, what: str, wrong: str) -> str:
    """The message: which input has another size, what is wrong with it, and what to do."""
    wanted, given = next(
        (w, g) for w, g in zip(example.tensors(), batch.tensors(), strict=True) if w.shape[1:] != g.shape[1:]
    )
    return (
        f"a batch of {what} has an input of shape {shown(given)}, and the model was traced with {shown(wanted)}: "
        f"{wrong}; {_way_out(wanted, given)}"
    )


def _way_out(wanted: Tensor, given: Tensor) -> str:
    sizes, others = tuple(wanted.shape[1:]), tuple(given.shape[1:])
    if wanted.dim() == 4 and sizes != others and sizes == (others[2], *others[:2]):
        return "put the channels first: images.permute(0, 3, 1, 2)"
    if wanted.dim() == 4 and sizes[0] != others[0]:
        grey = ", such as images.expand(-1, 3, -1, -1) for grey images" if others[0] == 1 else ""
        return f"give images of {sizes[0]} channels{grey}"
    if wanted.dim() == 4:
        return f"resize or pad all images to {sizes[1]} x {sizes[2]}, or trace on images of the size that the data has"
    if wanted.dim() <= 3 and others and sizes[0] != others[0] and sizes[1:] == others[1:]:
        return (
            f"sequences have to be of length {sizes[0]}: pad all batches to it (padding='max_length'), or trace on "
            f"inputs of the length that all batches have"
        )
    return "give all batches in the traced shape, or trace on inputs of the shape that the data has"
