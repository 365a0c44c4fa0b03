"""One view of every kind of batch: a tensor, a tuple or a dict, perhaps nested, with or without labels."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from whyprune.errors import InputError

BY_BATCH = ("causal", "exact", "curves", "taylor", "magnitude-l2")
MOST_SHOWN = 4
LABEL_KEYS = ("labels", "label", "target", "targets")


@dataclass(frozen=True)
class Batch:
    """Model inputs (`args`, `kwargs`) and, where the data has them, integer class labels of shape (B,).

    An input is a tensor, or a list, tuple or dict of inputs; whatever else it holds is handed on as it is.
    Where `whole` is set the network runs on batches of this size alone, and cuts go between batches.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    labels: Tensor | None = None
    whole: bool = False

    def tensors(self) -> list[Tensor]:
        """The input tensors, positional ones first."""
        return [t for t in pytree.tree_leaves((self.args, self.kwargs)) if isinstance(t, Tensor)]

    def __len__(self) -> int:
        return int(self.tensors()[0].shape[0])

    def __getitem__(self, index: slice | Tensor) -> "Batch":
        picked = self.mapped(lambda tensor: tensor[index])
        return Batch(picked.args, picked.kwargs, None if self.labels is None else self.labels[index])

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with every input tensor changed; labels stay."""
        args, kwargs = pytree.tree_map_only(Tensor, change, (self.args, self.kwargs))
        return replace(self, args=args, kwargs=kwargs)

    def channels_last(self) -> "Batch":
        """The same values; images (tensors of four dimensions) laid out with channels last."""
        return self.mapped(lambda t: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t)

    def call(self, model: nn.Module) -> Any:
        """The model's output on this batch."""
        return model(*self.args, **self.kwargs)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        moved = self.mapped(lambda tensor: tensor.to(device))
        return moved if self.labels is None else replace(moved, labels=self.labels.to(device))


ONE_BATCH = (Tensor, Mapping, Batch, np.ndarray)
"""What is one batch where many are expected."""


def as_batch(raw: Any, positional: int = 1) -> Batch:
    """Reads a batch as a data loader gives it; NumPy arrays become tensors.

    Args:
        raw: a tensor (the input), a sequence whose first `positional` entries are the inputs and whose next
            entry, if any, is the labels; or a dict of keyword inputs, the labels under one of `LABEL_KEYS`.
        positional: how many positional inputs the model takes.

    Raises:
        InputError: the batch holds no tensor, tensors of different lengths, NaN or infinite values.
    """
    if isinstance(raw, Batch):
        return raw
    raw = without_arrays(raw)
    _check_order(raw, positional)
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
    if not hasattr(data, "__iter__") and not hasattr(data, "__getitem__") and not isinstance(data, ONE_BATCH):
        raise InputError(f"the data is a {type(data).__name__}: give a DataLoader, a list of batches, or a dataset")
    for raw in [data] if isinstance(data, ONE_BATCH) else data:
        yield as_batch(raw, positional)


def sample_word(batch: Batch) -> str:
    """What the samples of a batch are called: `images` where a tensor of four dimensions is among them."""
    return "images" if any(t.dim() == 4 for t in batch.tensors()) else "samples"


def chunked(batches: Iterable[Batch], images: int) -> list[Batch]:
    """The same images in batches of at most so many each; whole batches stay as they are."""
    parts = ([b] if b.whole else [b[slice(i, i + images)] for i in range(0, len(b), images)] for b in batches)
    return [part for own in parts for part in own]


def cut_images(batches: Sequence[Batch], images: int) -> tuple[list[Batch], list[Batch]]:
    """(the first `images` images, the rest); batches keep their order.

    Of whole batches the first are those that fit into so many images, and one at least.
    """
    first: list[Batch] = []
    rest: list[Batch] = []
    for batch in batches:
        if batch.whole:
            fits = not rest and images > 0 and (len(batch) <= images or not first)
            (first if fits else rest).append(batch)
            images -= len(batch)
            continue
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
    if not rest:
        raise InputError(one_batch(batches[0]))
    return rest, first


def one_batch(batch: Batch) -> str:
    """Why a single batch that cannot be cut is too little, in a sentence without a full stop."""
    return (
        f"all the data is one batch of {len(batch)}, the only size on which this network runs, so it cannot be divided "
        "into images to fit and images to measure on: give two such batches or more"
    )


def joined(batches: Sequence[Batch]) -> Batch:
    """All images in one batch; labels only where every batch has them.

    Raises:
        InputError: there is no batch, or the batches' inputs differ in number, kind or size.
    """
    if not batches:
        raise InputError("there is no data: give at least one batch")
    flat, folds = zip(*(pytree.tree_flatten((b.args, b.kwargs)) for b in batches), strict=True)
    if any(fold != folds[0] for fold in folds):
        raise InputError("the batches do not go together: their inputs differ in number, names or kind")
    sizes = {tuple(tuple(t.shape[1:]) for t in b.tensors()) for b in batches}
    if len(sizes) > 1:
        shown = ", ".join(sorted(" and ".join(map(str, each)) for each in sizes)[:MOST_SHOWN])
        raise InputError(
            f"the batches do not go together: the inputs have several sizes ({shown}), and this looks at all of them "
            f"at once: give inputs of one size, or a method that goes batch by batch: {', '.join(BY_BATCH)}"
        )
    cat = [torch.cat(values) if isinstance(values[0], Tensor) else values[0] for values in zip(*flat, strict=True)]
    args, kwargs = pytree.tree_unflatten(cat, folds[0])
    known = [b.labels for b in batches if b.labels is not None]
    return Batch(args, kwargs, torch.cat(known) if len(known) == len(batches) else None)


def without_arrays(raw: Any) -> Any:
    """A raw batch with tensors in the place of NumPy arrays; arrays of text or objects stay."""

    def tensor(array: np.ndarray) -> Any:
        return torch.tensor(array) if array.dtype.kind in "fiub" else array

    if isinstance(raw, Mapping) and not isinstance(raw, dict):  # what tokenizers give is no dict
        raw = dict(raw)
    return pytree.tree_map_only(np.ndarray, tensor, raw)


def _check_order(raw: Any, positional: int) -> None:
    """Refuses one sample with its label first, and pictures that are no tensors yet."""
    if isinstance(raw, Mapping):
        inputs: Any = [value for key, value in raw.items() if key not in LABEL_KEYS]
    else:
        inputs = raw[:positional] if isinstance(raw, Sequence) and not isinstance(raw, str) else [raw]
    leaves = pytree.tree_leaves(inputs)
    if not leaves or any(isinstance(leaf, Tensor) for leaf in leaves):
        return
    labels = all(isinstance(leaf, int | float) for leaf in leaves)
    if labels and isinstance(raw, Sequence) and any(isinstance(value, Tensor) for value in raw):
        kinds = ", ".join(type(value).__name__ for value in raw)
        raise InputError(f"a batch holds {kinds}, and no tensor among its inputs: give (inputs, labels), in this order")
    if picture := next((leaf for leaf in leaves if type(leaf).__module__.startswith("PIL.")), None):
        raise InputError(
            f"a batch holds no input tensor but a PIL picture ({type(picture).__name__}): make it a tensor as in "
            "training, with its normalisation (torchvision's ToTensor), before it is given"
        )


def _as_labels(raw: Any) -> Tensor | None:
    if raw is None:
        return None
    try:
        labels = torch.as_tensor(raw)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"the labels of a batch are {raw!r:.80}: give one integer per input, or none at all"
        ) from error
    if labels.dim() == 0:
        raise InputError(f"the labels of a batch are the single value {raw!r:.80}: give one per input")
    return labels


def checked(batch: Batch, what: str = "a batch") -> Batch:
    """The batch itself.

    Raises:
        InputError: it holds no tensor, tensors of different lengths or of length 0, NaN or infinite values.
    """
    tensors = batch.tensors()
    if not tensors:
        kinds = ", ".join(type(value).__name__ for value in (*batch.args, *batch.kwargs.values()))
        came = f" but {kinds}" if kinds else ""
        raise InputError(f"{what} holds no input tensor{came}: give a tensor, (inputs, labels) or a dict of tensors")
    lengths = {int(t.shape[0]) if t.dim() else 0 for t in tensors}
    if batch.labels is not None:
        lengths.add(int(batch.labels.shape[0]))
    if len(lengths) != 1 or 0 in lengths:
        raise InputError(f"the tensors of {what} have lengths {sorted(lengths)}: they must agree and not be 0")
    for tensor in tensors:
        if tensor.layout != torch.strided or tensor.is_meta:
            kind = "without values, on the meta device" if tensor.is_meta else f"in the layout {tensor.layout}"
            raise InputError(f"{what} holds a tensor {kind}: give dense tensors with values, such as x.to_dense()")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            who = "the data holds" if what == "a batch" else f"{what} holds"
            raise InputError(f"{who} NaN or infinite values: clean the images or their normalisation")
    return batch
