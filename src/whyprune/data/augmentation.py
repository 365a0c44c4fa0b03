"""The usual augmentation of small images: a random crop of the zero-padded image, and a mirror image."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from whyprune.errors import InputError


@dataclass(frozen=True)
class Augmentation:
    """Random crop with zero padding, then a horizontal flip of half the images; each image draws its own.

    Works on pixels, before normalisation, so that the border is black, as in He et al. 2015, section 4.2.
    On images that are already normalised, the border is the mean colour instead.

    Attributes:
        pad: zero pixels added on each side; 0 for no crop.
        flip: mirror half the images; False where left and right mean something, as in digits.
    """

    pad: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise InputError(f"pad is {self.pad}: give 0 or more pixels")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augments a batch.

        Args:
            images: (B, C, H, W), any type, on the CPU.
            generator: a CPU generator; the only source of randomness.

        Returns:
            A new tensor of the same shape and type.
        """
        count, _, height, width = images.shape
        windows = F.pad(images, (self.pad,) * 4).unfold(2, height, 1).unfold(3, width, 1)
        top, left = torch.randint(0, 2 * self.pad + 1, (2, count), generator=generator)
        cropped = windows[torch.arange(count), :, top, left]
        if not self.flip:
            return cropped
        mirrored = torch.rand((count, 1, 1, 1), generator=generator) < 0.5
        return torch.where(mirrored, cropped.flip(3), cropped)
