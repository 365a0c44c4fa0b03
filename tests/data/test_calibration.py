"""The calibration images: split once, seen in views that depend on the seed alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whyprune.data.batches import split_images
from whyprune.data.calibration import MOST_AUDITED, calibrate
from whyprune.errors import InputError


def numbered(*sizes):
    """Batches of 1x1 images; every image is its own number."""
    numbers = torch.arange(float(sum(sizes))).view(-1, 1, 1, 1)
    return list(zip(numbers.split(sizes), torch.arange(sum(sizes)).split(sizes), strict=True))


def numbers_in(batches):
    return [int(n) for batch in batches for n in batch.args[0].flatten()]


def noise(images, generator):
    return images + 0.4 * torch.rand(images.shape, generator=generator)


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_every_image_is_either_fitted_or_audited(sizes):
    if sum(sizes) < 8:
        with pytest.raises(InputError, match=r"image.* of calibration data: give at least 8"):
            calibrate(numbered(*sizes), 1, None, 0)
        return
    found = calibrate(numbered(*sizes), 1, None, 0)
    planning, audit = numbers_in(found.planning), numbers_in(found.audit)
    assert sorted(planning + audit) == list(range(sum(sizes)))
    assert len(audit) == max(2, round(sum(sizes) / 8))
    assert found.images == sum(sizes)
    for batch in (*found.planning, *found.audit):
        assert batch.labels.tolist() == numbers_in([batch])  # labels stay with their images


def test_no_more_is_audited_than_is_useful():
    found = calibrate(numbered(6000), 1, None, 0)
    assert len(numbers_in(found.audit)) == MOST_AUDITED < 6000 / 8


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 300), min_size=1, max_size=4))
def test_effects_are_measured_on_other_images_than_refits_see(sizes):
    batches = calibrate(numbered(8, *sizes), 1, None, 0).planning
    fit, measure = split_images(batches)
    assert sorted(numbers_in(fit) + numbers_in(measure)) == sorted(numbers_in(batches))
    assert 2 <= len(numbers_in(measure)) <= min(128, sum(map(len, batches)) // 3)


def test_views_differ_by_number_and_by_seed_and_come_back():
    first, other_seed = (calibrate(numbered(16), 1, noise, seed) for seed in (0, 1))

    def seen(calibration, number):
        return calibration.view(number)[0].args[0]

    assert torch.equal(seen(first, 3), seen(first, 3))
    assert not torch.equal(seen(first, 3), seen(first, 4))
    assert not torch.equal(seen(first, 3), seen(other_seed, 3))
    assert torch.equal(seen(first, 3).floor(), first.planning[0].args[0])
    assert len(first.views([1, 2, 3])) == 3


def test_without_augmentation_all_views_are_one():
    plain = calibrate(numbered(16), 1, None, 0)
    assert numbers_in(plain.views([1, 2, 3])) == numbers_in(plain.planning)


def test_augmentation_finds_the_images_among_named_inputs():
    data = [{"mask": torch.ones(9, 4), "image": torch.zeros(9, 1, 2, 2), "labels": torch.arange(9)}]
    batch = calibrate(data, 1, noise, 0).view(1)[0]
    assert float(batch.kwargs["image"].min()) > 0
    assert bool((batch.kwargs["mask"] == 1).all())
    with pytest.raises(InputError, match="needs images"):
        calibrate([torch.zeros(9, 4)], 1, noise, 0).view(1)
