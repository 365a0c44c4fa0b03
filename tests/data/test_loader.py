"""A loader gives each chosen image once per epoch, in an order that its arguments alone decide."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pictures import random_pixels

from whyprune.data import Augmentation, Loader, Normalization, TensorSplit, calibration_indices
from whyprune.errors import InputError

COUNT = 23
IMAGES = torch.from_numpy(random_pixels(COUNT, 2, 4, 4))
LABELS = np.arange(COUNT)  # each image its own class: the labels tell the order
SPLIT = TensorSplit("pictures", IMAGES, LABELS)
HALF = Normalization((0.5, 0.5), (0.25, 0.5), "test")


def epoch(loader, number=0):
    loader.set_epoch(number)
    batches = list(loader)
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


@given(st.integers(1, 30), st.none() | st.integers(0, 99), st.sets(st.integers(0, COUNT - 1), min_size=1))
def test_each_image_comes_once_with_its_label(batch_size, seed, chosen):
    loader = Loader(SPLIT, HALF, batch_size, sorted(chosen), shuffle_seed=seed)
    sizes = [len(y) for _, y in loader]
    assert len(loader) == len(sizes)
    assert sum(sizes) == loader.images == len(chosen)
    assert all(size == batch_size for size in sizes[:-1])
    x, y = epoch(loader)
    assert sorted(y.tolist()) == sorted(chosen)
    assert torch.equal(x, HALF(IMAGES[y]))
    if seed is None:
        assert y.tolist() == sorted(chosen)


def test_the_batch_size_does_not_change_the_order():
    orders = [epoch(Loader(SPLIT, HALF, size, shuffle_seed=3))[1].tolist() for size in (1, 7, 100)]
    assert orders[0] == orders[1] == orders[2]


def test_epochs_differ_and_come_back():
    loader = Loader(SPLIT, HALF, 5, shuffle_seed=3, augment=Augmentation(1))
    first, second, again = epoch(loader, 0), epoch(loader, 1), epoch(loader, 0)
    assert not torch.equal(first[1], second[1])
    assert torch.equal(first[1], again[1])
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], epoch(Loader(SPLIT, HALF, 5, shuffle_seed=4, augment=Augmentation(1)))[0])


def test_augmentation_comes_before_normalisation():
    black = TensorSplit("black", torch.zeros(4, 2, 4, 4, dtype=torch.uint8), [0] * 4)
    x, _ = epoch(Loader(black, HALF, 4, shuffle_seed=0, augment=Augmentation(4)))
    assert torch.equal(x, HALF(torch.zeros(4, 2, 4, 4, dtype=torch.uint8)))


def test_augmentation_keeps_the_order_without_shuffling():
    x, y = epoch(Loader(SPLIT, HALF, 5, augment=Augmentation(1), augment_seed=0))
    assert y.tolist() == LABELS.tolist()
    assert not torch.equal(x, HALF(IMAGES))


def test_normalised_images_pass_as_they_are():
    images = torch.randn(5, 1, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    x, y = epoch(Loader(TensorSplit("f", images, [0] * 5), None, 2))
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert torch.equal(x, images.float())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_images_that_are_not_finite_are_named(value):
    images = torch.zeros(5, 1, 3, 3)
    images[3, 0, 1, 1] = value
    with pytest.raises(InputError, match=r"f: image 3 .* 1 in its batch"):
        list(Loader(TensorSplit("f", images, [0] * 5), None, 5))


def test_labels_out_of_range_are_named():
    assert len(list(Loader(SPLIT, HALF, 50, num_classes=COUNT))) == 1
    with pytest.raises(InputError, match=r"1 label.* 22 classes, first 22"):
        list(Loader(SPLIT, HALF, 50, num_classes=COUNT - 1))
    with pytest.raises(InputError, match="first -1"):
        list(Loader(TensorSplit("t", IMAGES, LABELS - 1), HALF, 50))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"normalization": None}, "mean and std"),
        ({"split": TensorSplit("f", torch.zeros(2, 2, 4, 4), [0, 1])}, "already normalised"),
        ({"indices": []}, "image numbers"),
        ({"indices": [0.5]}, "image numbers"),
        ({"indices": [[0]]}, "image numbers"),
        ({"indices": [0, COUNT]}, "0 to 23"),
        ({"indices": [-1]}, "-1"),
        ({"augment": Augmentation()}, "seed"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Loader(**{"split": SPLIT, "normalization": HALF, "batch_size": 4, **arguments})


@given(st.integers(2, 500), st.integers(2, 600), st.integers(0, 99))
def test_calibration_images_are_distinct_sorted_and_repeatable(size, count, seed):
    indices = calibration_indices(size, count, seed)
    assert len(indices) == min(size, count)
    assert np.all(np.diff(indices) > 0)
    assert indices[0] >= 0
    assert indices[-1] < size
    assert np.array_equal(indices, calibration_indices(size, count, seed))


def test_calibration_draws_every_image_equally_often():
    drawn = np.concatenate([calibration_indices(10, 3, seed) for seed in range(1000)])
    counts = np.bincount(drawn, minlength=10)
    assert np.all(np.abs(counts - 300) < 4 * np.sqrt(1000 * 0.3 * 0.7))


@pytest.mark.parametrize(("size", "count"), [(0, 5), (1, 5), (5, 1), (5, 0), (5, -3)])
def test_calibration_needs_two_images(size, count):
    with pytest.raises(InputError, match="at least 2"):
        calibration_indices(size, count, 0)


@given(st.floats(0.01, 0.99), st.integers(0, 99), st.sets(st.integers(0, COUNT - 1), min_size=2))
def test_held_out_images_are_neither_trained_on_nor_changed(share, seed, chosen):
    loader = Loader(SPLIT, HALF, 4, sorted(chosen), shuffle_seed=5, augment=Augmentation(1))
    train, held = loader.hold_out(share, seed)
    images, labels = epoch(held, 3)
    assert not set(labels.tolist()) & set(epoch(train, 3)[1].tolist())
    assert sorted(labels.tolist() + epoch(train, 3)[1].tolist()) == sorted(chosen)
    assert abs(held.images - share * len(chosen)) <= 1
    assert train.images > 0
    # In order, and as they are stored.
    assert labels.tolist() == sorted(labels.tolist())
    assert torch.equal(images, HALF(IMAGES[labels]))
    assert held.indices.tolist() == loader.hold_out(share, seed)[1].indices.tolist()


def test_the_rest_is_shuffled_and_augmented_by_the_epoch_as_before():
    loader = Loader(SPLIT, HALF, 5, shuffle_seed=3, augment=Augmentation(1))
    train, _ = loader.hold_out(0.2, 0)
    alone = Loader(SPLIT, HALF, 5, train.indices, shuffle_seed=3, augment=Augmentation(1))
    for number in (0, 1):
        for one, other in zip(epoch(train, number), epoch(alone, number), strict=True):
            assert torch.equal(one, other)
    assert loader.images == COUNT


def test_an_image_that_comes_twice_is_on_one_side():
    for seed in range(20):
        train, held = Loader(SPLIT, HALF, 5, [1, 1, 2, 2, 3]).hold_out(0.4, seed)
        assert not set(train.indices.tolist()) & set(held.indices.tolist())


def test_one_image_cannot_be_split():
    with pytest.raises(InputError, match="nothing is left to hold out"):
        Loader(SPLIT, HALF, 5, [4, 4]).hold_out(0.5, 0)
