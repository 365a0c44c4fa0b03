"""Small encoded images for the tests."""

from io import BytesIO

import numpy as np
from PIL import Image


def encoded(pixels, kind="PNG"):
    """The bytes of an image file of (H, W) or (H, W, 3) pixels."""
    buffer = BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {}
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


def random_pixels(count, *shape, seed=0):
    """uint8 (count, *shape)."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
