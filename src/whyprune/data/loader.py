"""Batches of network inputs from a split: picked, augmented, normalised, checked."""

import copy
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from whyprune.data.augmentation import Augmentation
from whyprune.data.normalization import Normalization
from whyprune.data.splits import Indices, Split, check_labels
from whyprune.errors import InputError

# Keeps the draw apart from the shuffling, which may have the same seed.
HOLD_OUT = 2


class Loader:
    """A re-iterable of `(x, y)`: float32 (B, C, H, W) and int64 (B,).

    The batches are a function of the arguments and the epoch alone: iterating twice gives the same batches,
    augmentation included, until `set_epoch` is called.

    Args:
        split: where images and labels come from.
        normalization: for uint8 splits; None for splits that are already normalised.
        batch_size: images per batch; the last batch may be smaller.
        indices: the images to use, in this order; None for all.
        shuffle_seed: reorder the images anew in every epoch; None keeps the order.
        augment: applied before normalisation; needs a seed.
        augment_seed: seed of the augmentation; `shuffle_seed` when None.
        num_classes: labels are checked to be below it; None checks only that they are not negative.

    Raises:
        InputError: wrong arguments; while iterating, labels out of range or images that are not finite.
    """

    def __init__(
        self,
        split: Split,
        normalization: Normalization | None,
        batch_size: int,
        indices: npt.ArrayLike | None = None,
        *,
        shuffle_seed: int | None = None,
        augment: Augmentation | None = None,
        augment_seed: int | None = None,
        num_classes: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}: give 1 or more")
        _check_normalization(split, normalization)
        self._augment_seed = shuffle_seed if augment_seed is None else augment_seed
        if augment is not None and self._augment_seed is None:
            raise InputError("augmentation draws at random: give shuffle_seed or augment_seed")
        self.split = split
        self.normalization = normalization
        self.batch_size = batch_size
        self.indices = _checked_indices(split, indices)
        self.num_classes = num_classes
        self._shuffle_seed = shuffle_seed
        self._augment = augment
        self._epoch = 0

    @property
    def images(self) -> int:
        """Images per epoch."""
        return len(self.indices)

    def __len__(self) -> int:
        return math.ceil(self.images / self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order and the augmentation of the next iteration."""
        self._epoch = epoch

    def hold_out(self, share: float, seed: int) -> tuple["Loader", "Loader"]:
        """Parts with some images, drawn at random: what is left for training, and the held-out images.

        Args:
            share: of the images, to hold out; at least one is, and one is left.
            seed: the same seed holds out the same images.

        Returns:
            Two loaders without a common image: one like this one, and one that neither shuffles nor augments.

        Raises:
            InputError: fewer than two different images.
        """
        images = np.unique(self.indices)
        if len(images) < 2:
            raise InputError(
                f"{self.split.name} has one image to train on: nothing is left to hold out; "
                "give more, or set validation_fraction=0"
            )
        count = min(max(round(share * len(images)), 1), len(images) - 1)
        held = np.sort(np.random.default_rng((seed, HOLD_OUT)).permutation(images)[:count])
        train = copy.copy(self)
        train.indices = self.indices[~np.isin(self.indices, held)]
        return train, Loader(self.split, self.normalization, self.batch_size, held, num_classes=self.num_classes)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self.indices
        if self._shuffle_seed is not None:
            order = np.random.default_rng((self._shuffle_seed, self._epoch)).permutation(order)
        generator = self._generator()
        for start in range(0, len(order), self.batch_size):
            yield self._batch(order[start : start + self.batch_size], generator)

    def _batch(self, indices: Indices, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        images, labels = self.split.batch(indices)
        check_labels(self.split.name, labels.numpy(), self.num_classes)
        if self._augment is not None and generator is not None:
            images = self._augment(images, generator)
        inputs = images.float() if self.normalization is None else self.normalization(images)
        if self.split.normalized and not bool(torch.isfinite(inputs).all()):
            wrong = indices[(~torch.isfinite(inputs)).flatten(1).any(1).numpy()]
            raise InputError(
                f"{self.split.name}: image {wrong[0]} holds NaN or infinite values, "
                f"{len(wrong)} in its batch: clean the images or their normalisation"
            )
        return inputs, labels

    def _generator(self) -> torch.Generator | None:
        if self._augment is None or self._augment_seed is None:
            return None
        # The third number keeps the crops independent of the shuffling drawn from the same seed.
        state = np.random.SeedSequence((self._augment_seed, self._epoch, 1)).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def calibration_indices(size: int, count: int, seed: int) -> Indices:
    """Draws the images to calibrate on.

    Args:
        size: images in the split.
        count: images wanted; all of them when there are fewer.
        seed: the same seed gives the same images.

    Returns:
        Sorted, distinct indices, (min(count, size),).

    Raises:
        InputError: fewer than two images in the split, or wanted: one image has no variance.
    """
    if size < 2 or count < 2:
        raise InputError(f"calibration with {count} of {size} image(s): it needs at least 2, to estimate variances")
    return np.sort(np.random.default_rng(seed).choice(size, min(count, size), replace=False)).astype(np.int64)


def _check_normalization(split: Split, normalization: Normalization | None) -> None:
    if split.normalized and normalization is not None:
        raise InputError(
            f"{split.name} is already normalised, and a normalisation was given ({normalization.origin}): "
            "leave it out, or give uint8 images"
        )
    if not split.normalized and normalization is None:
        raise InputError(f"{split.name} holds uint8 pixels: give the mean and std that the network was trained with")


def _checked_indices(split: Split, indices: npt.ArrayLike | None) -> Indices:
    chosen = np.arange(len(split)) if indices is None else np.asarray(indices)
    if chosen.ndim != 1 or not chosen.size or not np.issubdtype(chosen.dtype, np.integer):
        raise InputError(f"indices of shape {chosen.shape} and type {chosen.dtype}: give a list of image numbers")
    if chosen.min() < 0 or chosen.max() >= len(split):
        raise InputError(
            f"indices run from {chosen.min()} to {chosen.max()}, {split.name} has {len(split)} images from 0"
        )
    return chosen.astype(np.int64)
