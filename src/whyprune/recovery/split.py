"""The training data, whatever it is, as a training part and a validation part; the two never share a row."""

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
class Splittable(Protocol):
    """A re-iterable of batches that can part with some of its rows itself."""

    def hold_out(self, share: float, seed: int) -> tuple[Iterable[Any], Iterable[Any]]:
        """Two re-iterables without a common row: for training, and for validation (not augmented)."""
        ...


@dataclass(frozen=True)
class Parts:
    """The two parts, and all labels where they can be known without reading the inputs."""

    train: Source
    validation: Source | None
    labels: Tensor | None = None


def split_data(data: Any, share: float, batch_size: int, seed: int, positional: int = 1) -> Parts:
    """Splits training data by its kind.

    - A map-style dataset, or a `DataLoader` of one: by sample; the training part is reshuffled every epoch.
    - An object with `hold_out`: as it splits itself.
    - Any other iterable of batches: read once into memory; whole batches and rows of one are for validation.
      With `share` 0 a re-iterable is streamed instead.

    Args:
        data: see above.
        share: of the rows, for validation; 0 for none.
        batch_size: for datasets; a `DataLoader` has its own.
        seed: of the split and of the order.
        positional: how many positional inputs the network takes.

    Raises:
        InputError: data of no such kind, empty, too small to split, or with a sampler that cannot be split.
    """
    if share > 0 and isinstance(data, Splittable):
        train, validation = data.hold_out(share, seed)
        return Parts(_stream(train, seed, positional), _stream(validation, seed, positional))
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
            "give it a method hold_out(share, seed), or set validation_fraction=0"
        )
    return _split_batches(data, share, seed, positional)


def _stream(stream: Iterable[Any], seed: int, positional: int) -> StreamSource:
    length = len(stream) if isinstance(stream, Sized) else sum(1 for _ in stream)
    if length == 0:
        raise InputError("the training data or its validation part has no batches")
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
    rows = _validation_rows(size, share)
    order = generator(Stream.VALIDATION, source.seed).permutation(source.indices)
    train = replace(source, indices=np.sort(order[rows:]))
    validation = source.validation(np.sort(order[:rows])) if rows else None
    plain = type(source.items) is TensorDataset and source.collate is default_collate
    known = plain and len(source.items.tensors) > source.positional
    labels = source.items.tensors[source.positional][torch.from_numpy(source.indices)] if known else None
    return Parts(train, validation, labels)


def _split_batches(data: Iterable[Any], share: float, seed: int, positional: int) -> Parts:
    batches = list(as_batches(data, positional))
    missing = _validation_rows(sum(map(len, batches)), share)
    random = generator(Stream.VALIDATION, seed)
    train: list[Batch] = []
    validation: list[Batch] = []
    for number in random.permutation(len(batches)):
        batch = batches[number]
        rows = torch.from_numpy(random.permutation(len(batch)))
        taken = min(missing, len(batch))
        missing -= taken
        if taken:
            validation.append(batch[rows[:taken].sort().values])
        if taken < len(batch):
            train.append(batch[rows[taken:].sort().values])
    labels = [b.labels for b in batches if b.labels is not None]
    return Parts(
        _of_list(train, seed, positional),
        _of_list(validation, seed, positional, shuffle=False) if validation else None,
        torch.cat(labels) if labels and len({label.dim() for label in labels}) == 1 else None,
    )


def _of_list(batches: list[Batch], seed: int, positional: int, shuffle: bool = True) -> IndexedSource:
    return IndexedSource(
        batches, np.arange(len(batches), dtype=np.int64), seed, positional, None, _unchanged, shuffle=shuffle
    )


def _unchanged(batch: Batch) -> Batch:
    return batch


def _validation_rows(rows: int, share: float) -> int:
    if rows == 0:
        raise InputError("the training data is empty: give at least two labelled rows")
    if share == 0:
        return 0
    if rows < 2:
        raise InputError(
            "the training data has one row: nothing is left for validation; give more, or set validation_fraction=0"
        )
    return min(max(round(share * rows), 1), rows - 1)
