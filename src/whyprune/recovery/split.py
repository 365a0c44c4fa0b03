"""The training data, whatever it is, as a part to train on and a part held out; the two never share a row."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
)

from whyprune.data.batches import Batch, as_batches
from whyprune.errors import InputError
from whyprune.recovery.randomness import Stream, generator
from whyprune.recovery.sources import IndexedSource, Indices, Source, StreamSource


@runtime_checkable
class HoldsOut(Protocol):
    """A re-iterable of batches that can part with some of its rows itself."""

    def hold_out(self, share: float, seed: int) -> tuple[Iterable[Any], Iterable[Any]]:
        """Two re-iterables without a common row: to train on, and held out (not augmented)."""
        ...


@dataclass(frozen=True)
class Parts:
    """The two parts, and all labels where they can be known without reading the inputs."""

    train: Source
    holdout: Source | None
    labels: Tensor | None = None


def split_data(data: Any, share: float, batch_size: int, seed: int, positional: int = 1) -> Parts:
    """Splits training data by its kind.

    - A map-style dataset, or a `DataLoader` of one: by sample; the training part is reshuffled every epoch.
    - An object with `hold_out`: as it splits itself.
    - Any other iterable of batches: read once into memory; held out are whole batches and rows of one.
      With `share` 0 a re-iterable is streamed instead.

    Args:
        data: see above.
        share: of the rows, to hold out; 0 for none.
        batch_size: for datasets; a `DataLoader` has its own.
        seed: of the split and of the order.
        positional: how many positional inputs the network takes.

    Raises:
        InputError: data of no such kind, empty, too small to split, or with a sampler that cannot be split.
    """
    if share > 0 and isinstance(data, HoldsOut):
        train, holdout = data.hold_out(share, seed)
        return Parts(_stream(train, seed, positional), _stream(holdout, seed, positional))
    if isinstance(data, DataLoader) and not isinstance(data.dataset, IterableDataset):
        return _split_indexed(_of_loader(data, seed, positional), share)
    if isinstance(data, IterableDataset):
        raise InputError("the training data is an IterableDataset, which gives single samples: wrap it in a DataLoader")
    if _map_style(data):
        everything = np.arange(len(data), dtype=np.int64)
        return _split_indexed(IndexedSource(data, everything, seed, positional, batch_size, default_collate), share)
    if isinstance(data, Tensor | Mapping):
        return _split_batches([data], share, seed, positional)
    if not isinstance(data, Iterable) or isinstance(data, str | bytes):
        raise InputError(f"the training data is a {type(data).__name__}: give a dataset, a DataLoader or batches")
    return _of_iterable(data, share, seed, positional)


def _map_style(data: Any) -> bool:
    return not isinstance(data, list | tuple | Mapping | str | bytes | Tensor | DataLoader) and all(
        hasattr(data, name) for name in ("__getitem__", "__len__")
    )


def _of_iterable(data: Iterable[Any], share: float, seed: int, positional: int) -> Parts:
    if isinstance(data, list | tuple | Iterator):
        return _split_batches(data, share, seed, positional)
    if share == 0:
        return Parts(_stream(data, seed, positional), None)
    if hasattr(data, "set_epoch"):
        raise InputError(
            f"the training data ({type(data).__name__}) changes with the epoch and cannot be split: "
            "give it a method hold_out(share, seed), or set holdout=0"
        )
    return _split_batches(data, share, seed, positional)


def _stream(stream: Iterable[Any], seed: int, positional: int) -> StreamSource:
    length = len(stream) if isinstance(stream, Sized) else sum(1 for _ in stream)
    if length == 0:
        raise InputError("the training data or its held-out part has no batches")
    return StreamSource(stream, length, seed, positional)


def _of_loader(loader: DataLoader[Any], seed: int, positional: int) -> IndexedSource:
    batch_sampler = loader.batch_sampler
    if batch_sampler is not None and type(batch_sampler) is not BatchSampler:
        raise InputError(
            f"the DataLoader draws batches with {type(batch_sampler).__name__}, which cannot be split: "
            "give its dataset, or a list of batches"
        )
    loading = {
        "num_workers": loader.num_workers,
        "worker_init_fn": loader.worker_init_fn,
        "timeout": loader.timeout,
        "multiprocessing_context": loader.multiprocessing_context,
        "prefetch_factor": loader.prefetch_factor,
    }
    return IndexedSource(
        loader.dataset,
        _sampled(batch_sampler.sampler if batch_sampler is not None else loader.sampler, loader),
        seed,
        positional,
        loader.batch_size,
        loader.collate_fn,
        drop_last=loader.drop_last,
        loading=loading,
    )


def _sampled(sampler: Any, loader: DataLoader[Any]) -> Indices:
    size = len(loader.dataset)  # type: ignore[arg-type]
    if isinstance(sampler, SubsetRandomSampler):
        return np.unique(np.asarray(sampler.indices, dtype=np.int64))
    plain = isinstance(sampler, RandomSampler) and not sampler.replacement and sampler.num_samples == size
    if plain or isinstance(sampler, SequentialSampler | DistributedSampler):
        return np.arange(size, dtype=np.int64)
    raise InputError(
        f"the DataLoader draws samples with {type(sampler).__name__}, whose draws cannot be split: "
        "give a DataLoader with shuffle=True, or a list of batches"
    )


def _split_indexed(source: IndexedSource, share: float) -> Parts:
    size = len(source.indices)
    held = _held_rows(size, share)
    order = generator(Stream.HOLDOUT, source.seed).permutation(source.indices)
    train = replace(source, indices=np.sort(order[held:]))
    holdout = source.held_out(np.sort(order[:held])) if held else None
    plain = type(source.items) is TensorDataset and source.collate is default_collate
    known = plain and len(source.items.tensors) > source.positional
    labels = source.items.tensors[source.positional][torch.from_numpy(source.indices)] if known else None
    return Parts(train, holdout, labels)


def _split_batches(data: Iterable[Any], share: float, seed: int, positional: int) -> Parts:
    batches = list(as_batches(data, positional))
    missing = _held_rows(sum(map(len, batches)), share)
    random = generator(Stream.HOLDOUT, seed)
    train: list[Batch] = []
    holdout: list[Batch] = []
    for number in random.permutation(len(batches)):
        batch = batches[number]
        rows = torch.from_numpy(random.permutation(len(batch)))
        held = min(missing, len(batch))
        missing -= held
        if held:
            holdout.append(batch[rows[:held].sort().values])
        if held < len(batch):
            train.append(batch[rows[held:].sort().values])
    labels = [b.labels for b in batches if b.labels is not None]
    return Parts(
        _of_list(train, seed, positional),
        _of_list(holdout, seed, positional, shuffle=False) if holdout else None,
        torch.cat(labels) if labels and len({label.dim() for label in labels}) == 1 else None,
    )


def _of_list(batches: list[Batch], seed: int, positional: int, shuffle: bool = True) -> IndexedSource:
    return IndexedSource(
        batches, np.arange(len(batches), dtype=np.int64), seed, positional, None, _unchanged, shuffle=shuffle
    )


def _unchanged(batch: Batch) -> Batch:
    return batch


def _held_rows(rows: int, share: float) -> int:
    if rows == 0:
        raise InputError("the training data is empty: give at least two labelled rows")
    if share == 0:
        return 0
    if rows < 2:
        raise InputError("the training data has one row: nothing is left to hold out; give more, or set holdout=0")
    return min(max(round(share * rows), 1), rows - 1)
