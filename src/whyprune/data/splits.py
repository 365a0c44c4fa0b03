"""One part of a data set (train or test) as a map-style dataset of `(image, label)`."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from whyprune.data.images import Mode, NameOf, ReadBytes, decode_image, nameless
from whyprune.errors import FormatError, InputError

Indices = npt.NDArray[np.int64]

CACHE_BYTES = 2**30
DECODE_THREADS = 2


class Split(Dataset[tuple[Tensor, int]], ABC):
    """Images with their class labels.

    Attributes:
        name: what error messages call it, e.g. "digits train".
        normalized: the images are float and already normalised; otherwise they are uint8.
        labels: all labels as int64 (N,) where they are known without reading images, else None.
    """

    name: str
    normalized: bool = False
    labels: Indices | None = None

    @abstractmethod
    def __len__(self) -> int:
        """The number of images."""

    @abstractmethod
    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and int64 labels (B,) at `indices`.

        Raises:
            FormatError: an image cannot be decoded.
            InputError: the images differ in shape, or an item is not an image with a label.
        """

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} images: there is no image {index}")
        images, labels = self.batch(np.array([index], dtype=np.int64))
        return images[0], int(labels[0])


class TensorSplit(Split):
    """A split held in memory.

    Args:
        name: what error messages call it.
        images: (N, C, H, W), uint8, or floating point if already normalised.
        labels: N class labels, integers from 0.

    Raises:
        InputError: wrong shapes or types.
    """

    def __init__(self, name: str, images: Tensor, labels: Tensor | npt.ArrayLike) -> None:
        self.name = name
        self.labels = integer_labels(name, np.asarray(labels))
        if images.dim() != 4 or len(images) != len(self.labels):
            raise InputError(
                f"{name}: images have shape {tuple(images.shape)} for {len(self.labels)} labels: give (N, C, H, W)"
            )
        self.normalized = _is_normalized(name, images)
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and int64 labels (B,) at `indices`."""
        assert self.labels is not None
        return self._images[torch.from_numpy(indices)], torch.from_numpy(self.labels[indices])


class ImageSplit(Split):
    """A split of encoded images, decoded on first use by two threads and then kept as uint8.

    Args:
        name: what error messages call it.
        read: gives the encoded bytes of an image by its index; called from one thread only.
        labels: N class labels, integers from 0.
        mode: "L" (1 channel) or "RGB" (3).
        image_size: resize and centre-crop to this many pixels; None keeps the size, which must then agree.
        name_of: gives the file or the row that an image is from, for messages.
        cache_bytes: decoded images are kept up to this many bytes; images beyond it are decoded at every use.

    Raises:
        InputError: the labels are not integers.
    """

    def __init__(
        self,
        name: str,
        read: ReadBytes,
        labels: npt.ArrayLike,
        *,
        mode: Mode,
        image_size: int | None = None,
        name_of: NameOf = nameless,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.name = name
        self.labels = integer_labels(name, np.asarray(labels))
        self._read, self._name_of = read, name_of
        self._decode = partial(decode_image, mode=mode, image_size=image_size)
        self._cache_bytes = cache_bytes
        self._cache: Tensor | None = None
        self._cached = np.zeros(len(self.labels), dtype=bool)

    def __len__(self) -> int:
        return len(self._cached)

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and int64 labels (B,) at `indices`; decodes what is not cached."""
        assert self.labels is not None
        cache = self._allocated()
        fresh = self._decoded(np.unique(indices[~self._cached[indices]]), tuple(cache.shape[1:]))
        for index, image in fresh.items():
            if index < len(cache):
                cache[index] = image
                self._cached[index] = True
        if not fresh or int(indices.max()) < len(cache):
            images = cache[torch.from_numpy(indices)]
        else:
            images = torch.stack([fresh[i] if i in fresh else cache[i] for i in indices.tolist()])
        return images, torch.from_numpy(self.labels[indices])

    def _allocated(self) -> Tensor:
        """The cache: as many rows as `cache_bytes` allows; its rows have the shape of image 0."""
        if self._cache is None:
            first = self._decode_one(0, self._read(0))
            rows = min(len(self), self._cache_bytes // first.numel())
            self._cache = torch.empty((rows, *first.shape), dtype=torch.uint8)
        return self._cache

    def _decoded(self, indices: Indices, shape: tuple[int, ...]) -> dict[int, Tensor]:
        wanted = indices.tolist()
        encoded = [self._read(index) for index in wanted]
        if len(wanted) < 2 * DECODE_THREADS:
            images = list(map(self._decode_one, wanted, encoded))
        else:
            with ThreadPoolExecutor(DECODE_THREADS) as pool:
                images = list(pool.map(self._decode_one, wanted, encoded))
        for index, image in zip(wanted, images, strict=True):
            _check_shape(f"{self.name}: {self._called(index)}", image, shape)
        return dict(zip(wanted, images, strict=True))

    def _called(self, index: int) -> str:
        """What messages call an image: its number, and its file or row where that is known."""
        name = self._name_of(index)
        return f"image {index} ({name})" if name else f"image {index}"

    def _decode_one(self, index: int, data: bytes) -> Tensor:
        try:
            return self._decode(data)
        except FormatError as error:
            raise FormatError(f"{self.name}: {self._called(index)} {error}") from error


class DatasetSplit(Split):
    """Any map-style dataset of `(image, label)`; never cached, since its transforms may be random.

    Args:
        name: what error messages call it.
        dataset: has `__len__` and `__getitem__`; gives tensors (C, H, W), uint8 or floating point.

    Raises:
        InputError: the dataset is empty, not map-style, or its first item is not `(image, label)`.
    """

    def __init__(self, name: str, dataset: Any) -> None:
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise InputError(f"{name} is a {type(dataset).__name__}: give a dataset with a length and items")
        if len(dataset) == 0:
            raise InputError(f"{name} is empty: give at least one image")
        self.name = name
        self._dataset = dataset
        first, _ = self._item(0)
        self._shape = tuple(first.shape)
        self.normalized = _is_normalized(name, first)

    def __len__(self) -> int:
        return len(self._dataset)

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and int64 labels (B,) at `indices`."""
        items = [self._item(index) for index in indices.tolist()]
        for index, (image, _) in zip(indices, items, strict=True):
            _check_shape(f"{self.name}: image {index}", image, self._shape)
        return torch.stack([image for image, _ in items]), torch.tensor([label for _, label in items])

    def _item(self, index: int) -> tuple[Tensor, int]:
        item = self._dataset[index]
        if not isinstance(item, Sequence) or len(item) != 2 or not isinstance(item[0], Tensor):
            raise InputError(f"{self.name}: item {index} is a {type(item).__name__}: give (image tensor, label)")
        image, label = item
        if image.dim() != 3:
            raise InputError(f"{self.name}: image {index} has shape {tuple(image.shape)}: give (C, H, W)")
        return image, int(integer_labels(f"{self.name}: item {index}", np.asarray(label).reshape(-1))[0])


class ChannelSplit(Split):
    """The images of another split with another number of channels: grey as equal ones, or colour as its brightness.

    Args:
        split: of images with 1 or 3 channels.
        channels: 3 or 1.

    Raises:
        InputError: colour images that are normalised already, whose brightness nobody can tell.
    """

    def __init__(self, split: Split, channels: int) -> None:
        own = len(split[0][0])
        if {own, channels} != {1, 3} or (channels == 1 and split.normalized):
            raise InputError(
                f"{split.name} has images of {own} channels, and the network takes {channels}: "
                "give images of as many channels, or a network for these"
            )
        self.name, self.normalized, self.labels = split.name, split.normalized, split.labels
        self._split, self._channels = split, channels

    def __len__(self) -> int:
        return len(self._split)

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and int64 labels (B,) at `indices`."""
        images, labels = self._split.batch(indices)
        if self._channels == 3:
            return images.expand(-1, 3, -1, -1).contiguous(), labels
        # ITU-R BT.601, in the integers that pillow's conversion to grey uses
        weights = torch.tensor([19595, 38470, 7471]).view(-1, 1, 1)
        grey = ((images.int() * weights).sum(dim=1, keepdim=True) + 2**15) >> 16
        return grey.to(images.dtype), labels


def integer_labels(name: str, labels: npt.NDArray[Any]) -> Indices:
    """The labels as int64 (N,).

    Raises:
        InputError: they are not one integer per image.
    """
    if labels.dtype.kind in "USO" and labels.size:
        raise InputError(
            f"{name}: labels are text or objects, such as {labels.reshape(-1)[0]!r:.60}: give one integer class, "
            "from 0, per image"
        )
    if labels.ndim != 1 or (labels.size and not np.issubdtype(labels.dtype, np.integer)):
        raise InputError(
            f"{name}: labels have shape {labels.shape} and type {labels.dtype}: give one integer class per image"
        )
    return labels.astype(np.int64)


def check_labels(name: str, labels: Indices, num_classes: int | None) -> None:
    """Checks that every label is a class.

    Raises:
        InputError: a label is negative, or not below `num_classes` where that is known.
    """
    wrong = labels < 0 if num_classes is None else (labels < 0) | (labels >= num_classes)
    if wrong.any():
        known = "" if num_classes is None else f" for {num_classes} classes"
        raise InputError(
            f"{name}: {int(wrong.sum())} label(s) out of range{known}, first {labels[wrong][0]}: "
            "labels count from 0; remove unlabelled images"
        )


def _is_normalized(name: str, images: Tensor) -> bool:
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise InputError(f"{name}: images have type {images.dtype}: give uint8, or normalised floating point")
    return images.is_floating_point()


def _check_shape(what: str, image: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(image.shape) != shape:
        raise InputError(f"{what} has shape {tuple(image.shape)}, image 0 has {shape}: give image_size to resize them")
