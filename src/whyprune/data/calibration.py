"""The calibration images of one run: split, and seen in several augmented views."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from whyprune.data.batches import Batch, as_batches, cut_images, one_batch
from whyprune.errors import InputError, WhypruneError

Augment = Callable[[Tensor, torch.Generator], Tensor]
AUDIT_SHARE = 1 / 8
MOST_AUDITED = 512
LEAST_IMAGES = 8
FEW_IMAGES = 256
"""Below it the joint effect is hardly known: on a small convolutional network its 95% interval reached 30% to either
side of its mean with 256 images, 25% to 60% with 128, and more than the mean itself with 32."""


@dataclass(frozen=True)
class Calibration:
    """Images to plan and repair with, and others kept apart to measure joint effects on.

    Attributes:
        planning: images that plans and repairs are made from.
        audit: images that they never see.
        augment: (images, generator) -> images, or None.
        seed: of the augmentation.
    """

    planning: tuple[Batch, ...]
    audit: tuple[Batch, ...]
    augment: Augment | None
    seed: int

    @property
    def images(self) -> int:
        """How many images there are in all."""
        return sum(len(b) for b in (*self.planning, *self.audit))

    def view(self, number: int) -> list[Batch]:
        """The planning images; with augmentation, another number gives another view of them."""
        if self.augment is None:
            return list(self.planning)
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + number)
        return [_augmented(b, self.augment, generator) for b in self.planning]

    def views(self, numbers: Iterable[int]) -> list[Batch]:
        """Several views; one where there is no augmentation, since all would be the same."""
        if self.augment is None:
            return self.view(0)
        return [batch for number in numbers for batch in self.view(number)]


def calibrate(data: Iterable[Any], positional: int = 1, augment: Augment | None = None, seed: int = 0) -> Calibration:
    """Reads the calibration data once and keeps an eighth of its images apart.

    Args:
        data: batches: tensors, tuples or dicts.
        positional: how many positional inputs the network takes.
        augment: (images, generator) -> images, for further views of the images.
        seed: of the augmentation.

    Raises:
        InputError: there are fewer than eight images, or they cannot be read as batches.
    """
    batches = list(as_batches(data, positional))
    total = sum(len(b) for b in batches)
    if total < LEAST_IMAGES:
        raise InputError(
            f"{total} image{'s' * (total != 1)} of calibration data: give at least {LEAST_IMAGES}, better 1,024; "
            "effects are estimated and checked on different images"
        )
    audited = max(2, min(MOST_AUDITED, round(total * AUDIT_SHARE)))
    planning, audit = cut_images(batches, total - audited)
    if not audit:
        raise InputError(one_batch(batches[0]))
    return Calibration(tuple(planning), tuple(audit), augment, seed)


def few_images(images: int) -> str:
    """What so few calibration images mean, in a sentence; "" where there are enough."""
    if images >= FEW_IMAGES:
        return ""
    return (
        f"Only {images} calibration images: what is measured on them or refitted to them is noisy (along response "
        f"curves, more may be removed than the budget asks for); give at least {FEW_IMAGES}, better 1,024."
    )


def _checked_view(augment: Augment, images: Tensor, generator: torch.Generator) -> Tensor:
    """The images as a user's function changes them; refuses what is no view of them."""
    try:
        view: object = augment(images, generator)
    except WhypruneError:
        raise
    except Exception as error:
        raise InputError(
            f"augment failed ({type(error).__name__}: {error!s:.200}): it is called as (images, generator), with "
            f"images of shape {tuple(images.shape)}"
        ) from error
    if not isinstance(view, Tensor) or view.shape != images.shape or not bool(torch.isfinite(view).all()):
        came = f"shape {tuple(view.shape)}" if isinstance(view, Tensor) else f"a {type(view).__name__}"
        raise InputError(f"augment gave {came}: give finite images of the same shape, {tuple(images.shape)}")
    return view.to(images.dtype)


def _augmented(batch: Batch, augment: Augment, generator: torch.Generator) -> Batch:
    """Images are the first tensor of four dimensions."""
    flat, fold = pytree.tree_flatten((batch.args, batch.kwargs))
    for place, value in enumerate(flat):
        if isinstance(value, Tensor) and value.dim() == 4:
            flat[place] = _checked_view(augment, value, generator)
            args, kwargs = pytree.tree_unflatten(flat, fold)
            return replace(batch, args=args, kwargs=kwargs)
    raise InputError("augmentation needs images of shape (B, C, H, W) among the inputs: there are none")
