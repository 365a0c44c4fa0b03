"""One view of every kind of batch: a tensor, a tuple or a dict, with or without labels."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from whyprune.errors import InputError

LABEL_KEYS = ("labels", "label", "target", "targets")


@dataclass(frozen=True)
class Batch:
    """Model inputs (`args`, `kwargs`) and, where the data has them, integer class labels of shape (B,)."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    labels: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        """The input tensors, positional ones first."""
        return [t for t in (*self.args, *self.kwargs.values()) if isinstance(t, Tensor)]

    def __len__(self) -> int:
        return int(self.tensors()[0].shape[0])

    def __getitem__(self, index: slice | Tensor) -> "Batch":
        def pick(value: Any) -> Any:
            return value[index] if isinstance(value, Tensor) else value

        return Batch(
            tuple(pick(a) for a in self.args),
            {k: pick(v) for k, v in self.kwargs.items()},
            None if self.labels is None else self.labels[index],
        )

    def channels_last(self) -> "Batch":
        """The same values; images (tensors of four dimensions) laid out with channels last."""

        def lay(value: Any) -> Any:
            image = isinstance(value, Tensor) and value.dim() == 4
            return value.contiguous(memory_format=torch.channels_last) if image else value

        return Batch(tuple(lay(a) for a in self.args), {k: lay(v) for k, v in self.kwargs.items()}, self.labels)

    def call(self, model: nn.Module) -> Any:
        """The model's output on this batch."""
        return model(*self.args, **self.kwargs)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""

        def move(value: Any) -> Any:
            return value.to(device) if isinstance(value, Tensor) else value

        return Batch(
            tuple(move(a) for a in self.args),
            {k: move(v) for k, v in self.kwargs.items()},
            None if self.labels is None else self.labels.to(device),
        )


def as_batch(raw: Any, positional: int = 1) -> Batch:
    """Reads a batch as a data loader gives it.

    Args:
        raw: a tensor (the input), a sequence whose first `positional` entries are the inputs and whose next
            entry, if any, is the labels; or a dict of keyword inputs, the labels under one of `LABEL_KEYS`.
        positional: how many positional inputs the model takes.

    Raises:
        InputError: the batch holds no tensor, tensors of different lengths, NaN or infinite values.
    """
    if isinstance(raw, Batch):
        return raw
    if isinstance(raw, Tensor):
        batch = Batch((raw,), {})
    elif isinstance(raw, Mapping):
        labels = next((raw[k] for k in LABEL_KEYS if k in raw), None)
        batch = Batch((), {str(k): v for k, v in raw.items() if k not in LABEL_KEYS}, _as_labels(labels))
    elif isinstance(raw, Sequence) and not isinstance(raw, str):
        labels = raw[positional] if len(raw) > positional else None
        batch = Batch(tuple(raw[:positional]), {}, _as_labels(labels))
    else:
        raise InputError(f"a batch is a {type(raw).__name__}: give tensors, tuples or dicts of tensors")
    return checked(batch)


def as_batches(data: Iterable[Any], positional: int = 1) -> Iterator[Batch]:
    """The batches of any iterable, read by `as_batch`; a single tensor counts as one batch."""
    for raw in [data] if isinstance(data, Tensor | Mapping) else data:
        yield as_batch(raw, positional)


def sample_word(batch: Batch) -> str:
    """What the samples of a batch are called: `images` where a tensor of four dimensions is among them."""
    return "images" if any(t.dim() == 4 for t in batch.tensors()) else "samples"


def chunked(batches: Iterable[Batch], images: int) -> list[Batch]:
    """The same images in batches of at most so many each."""
    return [b[slice(i, i + images)] for b in batches for i in range(0, len(b), images)]


def cut_images(batches: Sequence[Batch], images: int) -> tuple[list[Batch], list[Batch]]:
    """(the first `images` images, the rest); batches keep their order."""
    first: list[Batch] = []
    rest: list[Batch] = []
    for batch in batches:
        take = min(max(images, 0), len(batch))
        if take:
            first.append(batch[slice(0, take)])
        if take < len(batch):
            rest.append(batch[slice(take, len(batch))])
        images -= take
    return first, rest


def split_images(batches: Sequence[Batch], share: float = 1 / 3, most: int = 128) -> tuple[list[Batch], list[Batch]]:
    """(the rest, the first images): the first go to measuring, a third of all but at most `most`.

    Args:
        batches: the images.
        share: of them that is measured on.
        most: images that are measured on at most.

    Raises:
        InputError: fewer than six images.
    """
    total = sum(len(b) for b in batches)
    if total < 6:
        raise InputError(f"{total} images of data: at least 6 are needed to fit and to measure on different ones")
    measured = max(2, min(most, int(total * share)))
    first, rest = cut_images(batches, measured)
    return rest, first


def joined(batches: Sequence[Batch]) -> Batch:
    """All images in one batch; labels only where every batch has them.

    Raises:
        InputError: there is no batch, or the batches' inputs differ in number, kind or size.
    """
    if not batches:
        raise InputError("there is no data: give at least one batch")

    def cat(values: Sequence[Any]) -> Any:
        return torch.cat(list(values)) if isinstance(values[0], Tensor) else values[0]

    try:
        args = tuple(cat(values) for values in zip(*(b.args for b in batches), strict=True))
        kwargs = {name: cat([b.kwargs[name] for b in batches]) for name in batches[0].kwargs}
        known = [b.labels for b in batches if b.labels is not None]
        return Batch(args, kwargs, torch.cat(known) if len(known) == len(batches) else None)
    except (RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"the batches do not go together: {error}") from error


def _as_labels(raw: Any) -> Tensor | None:
    if raw is None:
        return None
    try:
        labels = torch.as_tensor(raw)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the labels of a batch are {raw!r:.80}: give one integer per input") from error
    if labels.dim() == 0:
        raise InputError(f"the labels of a batch are the single value {raw!r:.80}: give one per input")
    return labels


def checked(batch: Batch) -> Batch:
    """The batch itself.

    Raises:
        InputError: it holds no tensor, tensors of different lengths or of length 0, NaN or infinite values.
    """
    tensors = batch.tensors()
    if not tensors:
        raise InputError("a batch holds no input tensor: give a tensor, (inputs, labels) or a dict of tensors")
    lengths = {int(t.shape[0]) if t.dim() else 0 for t in tensors}
    if batch.labels is not None:
        lengths.add(int(batch.labels.shape[0]))
    if len(lengths) != 1 or 0 in lengths:
        raise InputError(f"the tensors of a batch have lengths {sorted(lengths)}: they must agree and not be 0")
    for tensor in tensors:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError("the data holds NaN or infinite values: clean the images or their normalisation")
    return batch
