"""A data source: a train and a test split of the same kind of images, with class names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from whyprune.data.images import Mode, NameOf, ReadBytes, common_mode, nameless
from whyprune.data.splits import ChannelSplit, ImageSplit, Split, check_labels
from whyprune.errors import FormatError, InputError


@dataclass(frozen=True)
class DataSource:
    """Training and test images with their labels.

    Attributes:
        name: as the user named it.
        train: images to calibrate on and to learn from.
        test: images to measure on, once.
        class_names: one per class; empty when the number of classes is unknown.
        notes: what was done to make them images and classes, in sentences.

    Raises:
        InputError: an empty split, labels out of range, or splits whose images differ in kind.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for split in (self.train, self.test):
            if len(split) == 0:
                raise InputError(f"{split.name} is empty: give at least one image")
            if split.labels is not None:
                check_labels(split.name, split.labels, self.num_classes)
        kinds = {(tuple(s[0][0].shape), s.normalized) for s in (self.train, self.test)}
        if len(kinds) != 1:
            shapes = [tuple(s[0][0].shape) for s in (self.train, self.test)]
            types = ["float" if s.normalized else "uint8" for s in (self.train, self.test)]
            raise InputError(
                f"{self.name}: train images are {types[0]} {shapes[0]}, test images {types[1]} {shapes[1]}: "
                "make them agree (image_size resizes them)"
            )

    @property
    def num_classes(self) -> int | None:
        """The number of classes, or None when unknown."""
        return len(self.class_names) or None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.train[0][0].shape
        return int(channels), int(height), int(width)

    def with_channels(self, channels: int) -> "DataSource":
        """The same images with 1 or 3 channels: grey ones as three equal channels, colour as its brightness.

        Raises:
            InputError: images of another number of channels, or normalised colour.
        """
        if channels == self.image_shape[0]:
            return self
        said = "grey images are given as three equal channels" if channels == 3 else "colour images are made grey"
        note = f"{self.name}: the network takes {channels} channel{'s' * (channels > 1)}, so {said}."
        train, test = (ChannelSplit(split, channels) for split in (self.train, self.test))
        return DataSource(self.name, train, test, self.class_names, (*self.notes, note))


@dataclass(frozen=True)
class EncodedImages:
    """Encoded images of one split: `read(i)` gives the bytes of image i; `labels` is (N,); `name_of(i)` names it."""

    name: str
    read: ReadBytes
    labels: npt.NDArray[Any]
    name_of: NameOf = nameless

    def split(self, mode: Mode, image_size: int | None) -> ImageSplit:
        """The split that decodes them."""
        return ImageSplit(self.name, self.read, self.labels, mode=mode, image_size=image_size, name_of=self.name_of)


def encoded_source(
    name: str,
    train: EncodedImages,
    test: EncodedImages,
    class_names: Sequence[str],
    image_size: int | None,
    notes: Sequence[str] = (),
) -> DataSource:
    """A source of encoded images; both splits are decoded in the mode of the training images.

    Raises:
        InputError, FormatError: as `DataSource` and `ImageSplit`.
    """
    for part in (train, test):
        if len(part.labels) == 0:
            raise InputError(f"{part.name} is empty: give at least one image")
    try:
        mode = common_mode(train.read, len(train.labels), train.name_of)
    except FormatError as error:
        raise FormatError(f"{train.name}: {error}") from error
    splits = [part.split(mode, image_size) for part in (train, test)]
    return DataSource(name, splits[0], splits[1], tuple(class_names), tuple(notes))
