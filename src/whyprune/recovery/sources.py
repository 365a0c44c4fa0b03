"""Batches of an epoch as a function of (seed, epoch, position): any epoch can be entered anywhere, again."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from whyprune.data.batches import Batch, as_batch
from whyprune.errors import InputError
from whyprune.recovery.randomness import Stream, generator, seed_all

Indices = npt.NDArray[np.int64]


class Source(Protocol):
    """The training or the validation part of the data."""

    def __len__(self) -> int:
        """Batches per epoch."""
        ...

    def batches(self, epoch: int, start: int = 0, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        """The batches with numbers `rank`, `rank` + `ranks`, …; the first `start` of these are left out.

        Each rank gets the same number of batches: up to `ranks` - 1 batches of an epoch are not used.
        """
        ...


@dataclass(frozen=True)
class IndexedSource:
    """Items that can be read in any order: samples, stacked here, or whole batches.

    Args:
        items: has `__getitem__`, and `__getitems__` if it likes.
        indices: the items to use.
        batch_size: samples per batch at most; they differ by one sample at most. None: every item is a batch.
        collate: makes a batch of a list of samples, or finishes an item that is a batch.
        shuffle: a new order in every epoch.
        drop_last: batches of exactly `batch_size`, which leaves out the rest.
        loading: arguments of torch's `DataLoader` about worker processes.
    """

    items: Any
    indices: Indices
    seed: int
    positional: int
    batch_size: int | None
    collate: Callable[[Any], Any]
    shuffle: bool = True
    drop_last: bool = False
    loading: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        if self.batch_size is None:
            return len(self.indices)
        whole, rest = divmod(len(self.indices), self.batch_size)
        return whole + bool(rest and not (self.drop_last and whole))

    def batches(self, epoch: int, start: int = 0, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        """See `Source`."""
        numbers = range(start * ranks + rank, len(self) // ranks * ranks, ranks)
        # With batch_size None the loader's items are the view's items: whole batches.
        yield from DataLoader(
            _EpochView(self, self._groups(epoch), epoch), batch_size=None, sampler=numbers, **self.loading
        )

    def validation(self, indices: Indices) -> "IndexedSource":
        """The same kind of batches from other items, in the same order every time."""
        return replace(self, indices=indices, shuffle=False, drop_last=False)

    def _groups(self, epoch: int) -> list[Indices]:
        order = self.indices
        if self.shuffle:
            order = generator(Stream.ORDER, self.seed, epoch).permutation(order)
        if self.batch_size is not None and self.drop_last:
            order = order[: len(self) * self.batch_size]
        return np.array_split(order, len(self))

    def read(self, group: Indices) -> Batch:
        """One batch.

        Raises:
            InputError: the samples do not stack, or are no batch.
        """
        numbers = [int(i) for i in group]
        if self.batch_size is None:
            return as_batch(self.collate(self.items[numbers[0]]), self.positional)
        many = getattr(self.items, "__getitems__", None)
        samples = many(numbers) if many is not None else [self.items[i] for i in numbers]
        try:
            raw = self.collate(samples)
        except (TypeError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"the samples of the training data do not stack into a batch: {reason}") from error
        return as_batch(raw, self.positional)


class _EpochView(Dataset[Batch]):
    """One epoch's batches by number; random augmentation depends on the number, not on the worker."""

    def __init__(self, source: IndexedSource, groups: Sequence[Indices], epoch: int) -> None:
        self._source, self._groups, self._epoch = source, groups, epoch

    def __getitem__(self, number: int) -> Batch:
        seed_all(Stream.DATA, self._source.seed, self._epoch, number)
        return self._source.read(self._groups[number])


@dataclass(frozen=True)
class StreamSource:
    """A re-iterable of batches, read from its start in every epoch; told the epoch if it has `set_epoch`."""

    stream: Iterable[Any]
    length: int
    seed: int
    positional: int

    def __len__(self) -> int:
        return self.length

    def batches(self, epoch: int, start: int = 0, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        """See `Source`.

        Raises:
            InputError: fewer batches than in the epoch before.
        """
        set_epoch = getattr(self.stream, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(epoch)
        iterator = iter(self.stream)
        for number in range(self.length // ranks * ranks):
            seed_all(Stream.DATA, self.seed, epoch, number)
            try:
                raw = next(iterator)
            except StopIteration:
                raise InputError(
                    f"the training data gave {number} batches in epoch {epoch} and {self.length} before: "
                    "it must give the same number every time; a list of batches does"
                ) from None
            if number >= start * ranks and number % ranks == rank:
                yield as_batch(raw, self.positional)


def checked_labels(batch: Batch, classes: int, needed: bool) -> Batch:
    """The batch with int64 labels.

    Args:
        batch: as read.
        classes: K; labels must lie in 0 … K - 1.
        needed: False lets a batch without labels through.

    Raises:
        InputError: no labels though needed, or labels that are not class numbers for these logits.
    """
    if batch.labels is not None:
        return replace(batch, labels=class_numbers(batch.labels, classes))
    if needed:
        raise InputError(
            "the training data has no labels: give (inputs, labels) batches, "
            "or distil alone (distill=1 and the dense network)"
        )
    return batch


def class_numbers(labels: Tensor, classes: int) -> Tensor:
    """The labels as int64 (B,), each in 0 … `classes` - 1.

    Raises:
        InputError: they are not.
    """
    if labels.dim() != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(
            f"labels of shape {tuple(labels.shape)} and type {labels.dtype}: give one class number per row"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise InputError(
            f"labels run from {low} to {high}, and the network has {classes} classes, 0 to {classes - 1}: "
            "map the labels, or use a network with as many classes"
        )
    return labels.long()
