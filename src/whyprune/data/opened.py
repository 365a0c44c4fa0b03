"""What people hand over as data, as something that gives batches every time it is read: datasets, generators, lists."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from whyprune.data.batches import LABEL_KEYS, ONE_BATCH, Batch
from whyprune.errors import InputError

BATCH_SIZE = 64
"""Of samples that come one by one."""
MOST_BYTES = 4 * 2**30
"""Of a generator that is kept in memory."""


def opened(
    data: Any, example: Batch, what: str = "the data", batch_size: int = BATCH_SIZE
) -> tuple[Iterable[Any], str]:
    """Data as batches that can be read again and again, and a sentence about what was done for that, or "".

    A dataset or a list of single samples is put into a `DataLoader`; a generator, which gives its batches once, is
    read and kept. One batch alone is a list of it.

    Args:
        data: batches in any form, or samples without the batch dimension.
        example: what the network was traced on: tells samples from batches.
        what: whose data it is, for messages.
        batch_size: of samples that come one by one.

    Raises:
        InputError: it gives nothing that could be batches, or more than can be kept.
    """
    data = rereadable(data, what)
    if isinstance(data, ONE_BATCH):
        return [data], ""
    indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    if isinstance(data, str | bytes) or not (isinstance(data, Iterable) or indexed):
        raise InputError(f"{what} is a {type(data).__name__}: give a DataLoader, a list of batches, or a dataset")
    if isinstance(data, DataLoader):
        return data, ""
    if indexed and not isinstance(data, Sequence) and len(data) == 0:
        raise InputError(f"{what} is empty: give at least one batch")
    first = data[0] if indexed and len(data) else first_of(data)
    if first is None or not _is_sample(first, example):
        return data, ""
    kind = "a dataset" if isinstance(data, Dataset) or not isinstance(data, Sequence) else "a list"
    items: Any = data if isinstance(data, IterableDataset) or indexed else list(data)
    loader: DataLoader[Any] = DataLoader(items, batch_size=batch_size, collate_fn=_Stacked(what))
    return (
        loader,
        f"{what[:1].upper()}{what[1:]} is {kind} of single samples: a DataLoader gives {BATCH_SIZE} at a time.",
    )


def rereadable(data: Any, what: str = "the data") -> Any:
    """Data as it is; what gives its batches only once, such as a generator, as a list of them.

    Raises:
        InputError: it is too large to keep.
    """
    if not isinstance(data, Iterator):
        return data
    held, size = [], 0
    for raw in data:
        held.append(raw)
        size += sum(t.numel() * t.element_size() for t in pytree.tree_leaves(raw) if isinstance(t, Tensor))
        if size > MOST_BYTES:
            raise InputError(
                f"{what} is a {type(data).__name__} of more than {MOST_BYTES / 2**30:g} GiB, which can be read only "
                "once and is too large to keep: give a DataLoader or a list"
            )
    return held


def _is_sample(first: Any, example: Batch) -> bool:
    """Whether the first entry lacks the batch dimension that the example has."""
    if isinstance(first, Batch):
        return False
    if isinstance(first, Mapping):
        pairs = [(_rank(first[k]), _rank(v)) for k, v in example.kwargs.items() if k in first]
    else:
        entries = list(first) if isinstance(first, Sequence) and not isinstance(first, str) else [first]
        pairs = [(_rank(g), _rank(e)) for g, e in zip(entries, example.args, strict=False)]
    known = [(given, wanted) for given, wanted in pairs if given is not None and wanted is not None]
    return bool(known) and all(given == wanted - 1 for given, wanted in known)


def _rank(value: Any) -> int | None:
    """Dimensions of a value; None where it has none or several."""
    if isinstance(value, Tensor):
        return value.dim()
    if isinstance(value, np.ndarray):
        return value.ndim
    depth = 0
    while isinstance(value, list) and value:
        value, depth = value[0], depth + 1
    return depth if depth and isinstance(value, int | float) else None


class _Stacked:
    """Samples as one batch; columns of numbers, as tables have them, become tensors."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __call__(self, samples: Sequence[Any]) -> Any:
        try:
            return default_collate([_tensors(sample) for sample in samples])
        except (TypeError, RuntimeError, KeyError) as error:
            sizes = sorted({tuple(t.shape) for s in samples for t in chain(pytree.tree_leaves(_tensors(s))) if _big(t)})
            differ = f"; their sizes are {sizes[:4]}" if len(sizes) > 1 else ""
            raise InputError(
                f"the samples of {self._what} do not stack into a batch ({str(error).splitlines()[0]:.120}){differ}: "
                "make them tensors of one size (pad or resize), or give a DataLoader with a collate_fn"
            ) from error


def _big(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


def _tensors(sample: Any) -> Any:
    """A sample of a table: lists of numbers as tensors."""
    if not isinstance(sample, Mapping):
        return sample

    def read(key: str, value: Any) -> Any:
        numbers = isinstance(value, list) and bool(value) and isinstance(value[0], int | float | list)
        return torch.tensor(value) if numbers and key not in LABEL_KEYS else value

    return {str(key): read(str(key), value) for key, value in sample.items()}


def first_of(batches: Iterable[Any]) -> Any:
    """The first entry, None where there is none; a loader that shuffles draws its later orders as without this look."""
    with torch.random.fork_rng(devices=[]):
        return next(iter(batches), None)


def length_of(data: Any) -> int | None:
    """How many batches there are, where that is known."""
    if isinstance(data, ONE_BATCH) or not isinstance(data, Sized):
        return None
    try:
        return len(data)
    except TypeError:  # a DataLoader of an IterableDataset
        return None
