"""Decoding gives back the pixels that were saved, and refuses what is no whole image."""

from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, random_pixels
from PIL import Image

from whyprune.data.images import common_mode, decode_image
from whyprune.errors import FormatError

COLOUR = random_pixels(1, 6, 5, 3)[0]
GREY = COLOUR[:, :, 0]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_the_saved_pixels(kind):
    image = decode_image(encoded(COLOUR, kind), "RGB")
    assert image.dtype == torch.uint8
    assert np.array_equal(image.permute(1, 2, 0).numpy(), COLOUR)


def test_grey_is_one_channel_and_three_equal_ones_in_colour():
    grey, colour = decode_image(encoded(GREY), "L"), decode_image(encoded(GREY), "RGB")
    assert np.array_equal(grey[0].numpy(), GREY)
    assert torch.equal(colour, grey.expand(3, -1, -1))


def test_resizing_crops_the_centre():
    wide = np.zeros((4, 12), dtype=np.uint8)
    wide[:, 4:8] = 200
    assert torch.equal(decode_image(encoded(wide), "L", 4), torch.full((1, 4, 4), 200, dtype=torch.uint8))


def test_resizing_to_the_same_size_changes_nothing():
    square = COLOUR[:5, :5]
    assert torch.equal(decode_image(encoded(square), "RGB", 5), decode_image(encoded(square), "RGB"))


def test_deep_images_are_refused():
    buffer = BytesIO()
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(buffer, "PNG")
    with pytest.raises(FormatError, match="8 bits"):
        decode_image(buffer.getvalue(), "L")


def test_formats_that_start_programs_are_refused():
    with pytest.raises(FormatError, match="cannot be decoded"):
        decode_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n", "RGB")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_files_decode_or_are_refused(data):
    whole = encoded(COLOUR, data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])))
    position = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:position] + bytes([data.draw(st.integers(0, 255))]) + whole[position + 1 :]
    try:
        image = decode_image(damaged, "RGB")
    except FormatError:
        return
    assert image.dtype == torch.uint8
    assert image.shape[0] == 3


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@given(st.floats(0, 0.7))
@settings(max_examples=20, deadline=None)
def test_truncated_files_are_refused(kind, part):
    whole = encoded(COLOUR, kind)
    with pytest.raises(FormatError):
        decode_image(whole[: int(part * len(whole))], "RGB")


def test_images_are_grey_only_if_all_are():
    grey, colour = encoded(GREY), encoded(COLOUR)
    assert common_mode(lambda _: grey, 5) == "L"
    assert common_mode(lambda i: colour if i == 3 else grey, 5) == "RGB"
