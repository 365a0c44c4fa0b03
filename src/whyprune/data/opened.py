"""What people hand over as data, as something that gives batches every time it is read: datasets, generators, lists."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from whyprune.data.batches import LABEL_KEYS, ONE_BATCH, Batch
from whyprune.errors import InputError, WhypruneError

BATCH_SIZE = 64
"""Of samples that come one by one."""
ARRAYS = (Tensor, np.ndarray)
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
    if _is_one_batch(data, example):
        return [data], ""
    if indexed and not isinstance(data, Sequence) and len(data) == 0:
        raise InputError(f"{what} is empty: give at least one batch")
    first = _first(data, what) if indexed and len(data) else first_of(data, what)
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
    for raw in read(data, what):
        held.append(raw)
        size += sum(t.numel() * t.element_size() for t in pytree.tree_leaves(raw) if isinstance(t, Tensor))
        if size > MOST_BYTES:
            raise InputError(
                f"{what} is a {type(data).__name__} of more than {MOST_BYTES / 2**30:g} GiB, which can be read only "
                "once and is too large to keep: give a DataLoader or a list"
            )
    return held


def _is_one_batch(data: Any, example: Batch) -> bool:
    """Whether it is (inputs, labels) where batches of them are expected: the example's inputs, then labels."""
    count = len(example.args)
    if not isinstance(data, tuple | list) or len(data) != count + 1 or not all(isinstance(v, ARRAYS) for v in data):
        return False
    ranks, wanted = [_rank(value) for value in data], [_rank(value) for value in example.args]
    return ranks[:-1] == wanted and ranks[-1] == 1 != wanted[0] and len({len(value) for value in data}) == 1


def _first(data: Any, what: str) -> Any:
    with _reading(what):
        return data[0]


def read(batches: Iterable[Any], what: str) -> Iterator[Any]:
    """The entries of data; an error that the user's own code raises on the way is one of ours, which names it."""
    with _reading(what):
        yield from batches


@contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except WhypruneError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = lines[-1] if lines and lines[0].startswith("Caught ") else next(iter(lines), "")
        raise InputError(
            f"{what} cannot be read: its own code raised {type(error).__name__}: {said:.200}; look at that sample"
        ) from error


def _is_sample(first: Any, example: Batch) -> bool:
    """Whether the first entry lacks the batch dimension that the example has."""
    if isinstance(first, Batch):
        return False
    if isinstance(first, Mapping):
        pairs = [(_rank(first[k]), _rank(v)) for k, v in example.kwargs.items() if k in first]
        if not example.kwargs and isinstance(example.args[0], Tensor):  # refused below, for what it is
            pairs = [(_rank(v), _rank(example.args[0])) for k, v in first.items() if k not in LABEL_KEYS]
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


def first_of(batches: Iterable[Any], what: str = "the data") -> Any:
    """The first entry, None where there is none; a loader that shuffles draws its later orders as without this look."""
    with torch.random.fork_rng(devices=[]):
        return next(read(batches, what), None)


def length_of(data: Any) -> int | None:
    """How many batches there are, where that is known."""
    if isinstance(data, ONE_BATCH) or not isinstance(data, Sized):
        return None
    try:
        return len(data)
    except TypeError:  # a DataLoader of an IterableDataset
        return None
