"""How named networks and data are loaded: frozen, checked records, from which the command line makes its options."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from whyprune.fields import check_fields

CALIBRATION_IMAGES = 1024


@dataclass(frozen=True)
class NetworkConfig:
    """Which weights a named network gets, and its size.

    Attributes:
        weights: trained weights: a file of safetensors, or of torch.save (.pt, .pth, .bin, .ckpt) with tensors alone.
            Built-in networks need one.
        num_classes: classes of the network; default: those of the data.
    """

    weights: str | Path | None = None
    num_classes: Annotated[int | None, Field(ge=1)] = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class DataConfig:
    """What is done with images of a named data set.

    Attributes:
        image_size: resize and centre-crop images to this many pixels.
        mean: normalisation: mean per channel, of pixels in 0 to 1, as 0.49,0.48,0.45. Default: what the JSON file of
            the same name beside the weights states, else the built-in network's own.
        std: normalisation: standard deviation per channel.
        calibration_images: images of the training split to measure effects on and to repair with.
        augment: shift images at random, and mirror those in colour, for repair and recovery.
    """

    image_size: Annotated[int | None, Field(ge=1)] = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    calibration_images: Annotated[int, Field(ge=2)] = CALIBRATION_IMAGES
    augment: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
