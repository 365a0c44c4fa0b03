"""Each augmented image is one of the crops that a plain loop lists."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import random_pixels

from whyprune.data import Augmentation
from whyprune.errors import InputError


def all_crops(image, pad, flip):
    """{(top, left, mirrored): crop}, by slicing the padded image."""
    height, width = image.shape[1:]
    padded = F.pad(image, (pad,) * 4)
    crops = {}
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            crop = padded[:, top : top + height, left : left + width]
            crops[top, left, False] = crop
            if flip:
                crops[top, left, True] = crop.flip(2)
    return crops


def draws(images, pad, flip, seed):
    """Which crop each image became; fails if it became none."""
    result = Augmentation(pad, flip)(images, torch.Generator().manual_seed(seed))
    assert result.dtype == images.dtype
    return [
        next(key for key, crop in all_crops(image, pad, flip).items() if torch.equal(crop, new))
        for image, new in zip(images, result, strict=True)
    ]


@given(st.integers(0, 2), st.booleans(), st.sampled_from([torch.uint8, torch.float32]), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_each_image_becomes_one_of_its_crops(pad, flip, dtype, seed):
    draws(torch.from_numpy(random_pixels(6, 3, 5, 4)).to(dtype), pad, flip, seed)


@pytest.mark.parametrize("flip", [True, False])
def test_every_crop_is_drawn_equally_often(flip):
    images = torch.from_numpy(random_pixels(1, 3, 4, 4)).expand(1800, -1, -1, -1)
    drawn = draws(images, 1, flip, 0)
    crops = 18 if flip else 9
    counts = torch.tensor([drawn.count(key) for key in set(drawn)], dtype=torch.float64)
    assert len(counts) == crops
    chi_square = ((counts - 1800 / crops) ** 2 / (1800 / crops)).sum()
    assert chi_square < (40.8 if flip else 26.1)  # 0.999 quantiles, 17 and 8 degrees of freedom


def test_without_pad_and_flip_nothing_changes():
    images = torch.from_numpy(random_pixels(6, 3, 5, 4))
    assert torch.equal(Augmentation(0, flip=False)(images, torch.Generator()), images)


def test_the_generator_is_the_only_randomness():
    images = torch.from_numpy(random_pixels(6, 3, 5, 4))
    torch.manual_seed(1)
    one = Augmentation()(images, torch.Generator().manual_seed(0))
    torch.manual_seed(2)
    assert torch.equal(one, Augmentation()(images, torch.Generator().manual_seed(0)))
    assert not torch.equal(one, Augmentation()(images, torch.Generator().manual_seed(1)))


def test_a_negative_pad_is_refused():
    with pytest.raises(InputError, match="-1"):
        Augmentation(pad=-1)
