"""Encoded images (PNG, JPEG, WebP, ...) to uint8 tensors, with pillow."""

from collections.abc import Callable
from io import BytesIO
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from whyprune.errors import FormatError

Mode = Literal["L", "RGB"]
ReadBytes = Callable[[int], bytes]
NameOf = Callable[[int], str]

# A closed list: some of pillow's other formats start programs (EPS runs Ghostscript).
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
GREY_MODES = ("1", "L", "LA")
# Pillow cuts these off at 255 when it makes them 8-bit.
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
PROBED_IMAGES = 16


def decode_image(data: bytes, mode: Mode, image_size: int | None = None) -> Tensor:
    """Decodes one image.

    Args:
        data: the bytes of an image file in one of `FORMATS`.
        mode: "L" for 1 channel, "RGB" for 3.
        image_size: resize the shorter side to this and crop the centre; None keeps the size. In pixels.

    Returns:
        uint8 tensor (C, H, W).

    Raises:
        FormatError: the bytes are no image, are cut off, or hold more than 8 bits per channel.
    """
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            if image.mode in DEEP_MODES:
                raise FormatError(f"has more than 8 bits per channel (mode {image.mode}): save it as 8-bit")
            picture = image.convert(mode)
    except FormatError:
        raise
    except Exception as error:  # a hostile file can raise anything in a decoder
        reason = "it is no image in a known format" if isinstance(error, UnidentifiedImageError) else error
        raise FormatError(f"cannot be decoded ({len(data)} bytes; {reason}): replace the file") from error
    if image_size is not None and picture.size != (image_size, image_size):
        picture = ImageOps.fit(picture, (image_size, image_size), Image.Resampling.BICUBIC)
    pixels = np.array(picture)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).contiguous()


def nameless(_: int) -> str:
    """The place of an image that has none but its number."""
    return ""


def common_mode(read: ReadBytes, count: int, name_of: NameOf = nameless) -> Mode:
    """The mode for a set of images: "L" if a sample spread over the set is all grey, else "RGB".

    Raises:
        FormatError: an image of the sample cannot be opened.
    """
    for index in np.unique(np.linspace(0, count - 1, PROBED_IMAGES, dtype=np.int64)):
        data = read(int(index))
        try:
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                if image.mode not in GREY_MODES:
                    return "RGB"
        except Exception as error:
            reason = "it is no image in a known format" if isinstance(error, UnidentifiedImageError) else error
            at = f"{name}; " if (name := name_of(int(index))) else ""
            raise FormatError(f"image {index} cannot be opened ({at}{len(data)} bytes; {reason})") from error
    return "L"
