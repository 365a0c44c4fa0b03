"""How pixels become a network's input: scaled to [0, 1], then `(x - mean) / std` per channel."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whyprune.data.splits import Split
from whyprune.errors import FormatError, InputError

_NUMBERS = r"\s*(?:of|=|:)?\s*[(\[]([^)\]]*)[)\]]"


@dataclass(frozen=True)
class Normalization:
    """Per-channel normalisation of pixels in [0, 1].

    Attributes:
        mean: one per channel.
        std: one per channel, above 0.
        origin: where the numbers came from, for the report.

    Raises:
        InputError: lengths differ or are 0, a number is not finite, or a std is not above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std):
            raise InputError(f"mean {self.mean} and std {self.std}: give one of each per channel")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise InputError(f"mean {self.mean} and std {self.std}: give finite numbers, std above 0")

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 images (B, C, H, W) to float32 (B, C, H, W).

        Raises:
            InputError: the images are not uint8, or have another number of channels.
        """
        if images.dtype != torch.uint8:
            raise InputError(f"images have type {images.dtype}: normalisation takes uint8 pixels")
        if images.dim() != 4 or images.shape[1] != len(self.mean):
            raise InputError(
                f"images (B, C, H, W) have shape {tuple(images.shape)}, the normalisation has "
                f"{len(self.mean)} channel(s) ({self.origin}): give one mean and std per channel"
            )
        mean, std = (torch.tensor(v, device=images.device).view(-1, 1, 1) for v in (self.mean, self.std))
        return images.float().div_(255).sub_(mean).div_(std)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` reads it back."""
        return {"mean": list(self.mean), "std": list(self.std), "origin": self.origin}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Normalization":
        """Reads `as_dict`'s form.

        Raises:
            FormatError: a field is missing, or not what it should be.
        """
        try:
            return cls(_numbers(fields["mean"]), _numbers(fields["std"]), str(fields["origin"]))
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"this is no normalisation ({error!r}): {dict(fields)}") from error

    @classmethod
    def from_card(cls, path: str | Path) -> "Normalization":
        """Reads the JSON card beside a weights file.

        Takes the fields `mean` and `std`; without them, the text of the field `input`, as in
        "normalised by mean (0.5, 0.5, 0.5) and std (0.2, 0.2, 0.2)".

        Raises:
            FormatError: the card is missing, is no JSON object, or does not state both.
        """
        try:
            card = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise FormatError(f"the card {path} cannot be read as JSON ({error}): give --mean and --std") from error
        stated = card if isinstance(card, dict) else {}
        if "mean" not in stated and "std" not in stated:
            text = str(stated.get("input", ""))
            stated = {k: found[1].split(",") for k in ("mean", "std") if (found := re.search(k + _NUMBERS, text))}
        try:
            return cls(_numbers(stated["mean"]), _numbers(stated["std"]), f"card {Path(path).name}")
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"the card {path} does not state a usable mean and std ({error}): "
                "add both as lists, or give --mean and --std"
            ) from error

    @classmethod
    def of(cls, split: Split) -> "Normalization":
        """The mean and standard deviation of a split's own pixels; reads every image.

        Raises:
            InputError: the split is already normalised, or a channel is constant.
        """
        if split.normalized:
            raise InputError(f"{split.name} is already normalised: it has no pixels to take the mean of")
        channels = len(split[0][0])
        total, square = torch.zeros(2, channels, dtype=torch.float64)
        pixels = 0
        for start in range(0, len(split), 1024):
            images, _ = split.batch(np.arange(start, min(start + 1024, len(split))))
            values = images.double() / 255
            total += values.sum(dim=(0, 2, 3))
            square += values.square().sum(dim=(0, 2, 3))
            pixels += values.numel() // values.shape[1]
        mean = total / pixels
        std = (square / pixels - mean**2).clamp_min(0).sqrt()
        return cls(tuple(mean.tolist()), tuple(std.tolist()), f"pixels of {split.name}")


def _numbers(values: Sequence[Any]) -> tuple[float, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"{values!r} is no list of numbers")
    return tuple(float(v) for v in values)
