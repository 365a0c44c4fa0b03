"""A split gives the same images one by one, in batches, cached or not."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pictures import encoded, random_pixels
from torch.utils.data import TensorDataset

from whyprune.data import DatasetSplit, DataSource, ImageSplit, TensorSplit
from whyprune.errors import FormatError, InputError

PIXELS = random_pixels(10, 4, 4, 3)
LABELS = np.arange(10) % 3
FILES = [encoded(p) for p in PIXELS]
IMAGES = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
ONE_IMAGE = 3 * 4 * 4


def image_split(cache_bytes=2**20, read=FILES.__getitem__):
    return ImageSplit("pictures", read, LABELS, mode="RGB", cache_bytes=cache_bytes)


@pytest.mark.parametrize("cached_images", [0, 1, 4, 9, 100])
@given(indices=st.lists(st.integers(0, 9), min_size=1, max_size=20))
def test_every_cache_size_gives_the_same_images(cached_images, indices):
    split = image_split(cached_images * ONE_IMAGE)
    for _ in range(2):
        images, labels = split.batch(np.array(indices))
        assert torch.equal(images, IMAGES[indices])
        assert labels.tolist() == LABELS[indices].tolist()


def test_a_cached_image_is_read_once_and_others_every_time():
    read = []

    def count(index):
        read.append(index)
        return FILES[index]

    split = image_split(4 * ONE_IMAGE, count)
    everything = np.arange(10)
    split.batch(everything)
    read.clear()
    split.batch(everything)
    assert sorted(read) == [4, 5, 6, 7, 8, 9]


def test_changing_a_batch_does_not_change_the_split():
    for split in (image_split(), TensorSplit("t", IMAGES.clone(), LABELS)):
        images, labels = split.batch(np.array([0, 1]))
        images.zero_()
        labels.zero_()
        assert torch.equal(split.batch(np.array([0, 1]))[0], IMAGES[:2])
        assert split[1][1] == 1


@pytest.mark.parametrize(
    "split",
    [
        image_split(),
        TensorSplit("t", IMAGES, LABELS),
        DatasetSplit("d", TensorDataset(IMAGES, torch.from_numpy(LABELS))),
    ],
    ids=["encoded", "tensor", "dataset"],
)
def test_items_and_batches_agree(split):
    items = list(split)
    assert len(items) == len(split) == 10
    assert torch.equal(torch.stack([image for image, _ in items]), IMAGES)
    assert [label for _, label in items] == LABELS.tolist()
    assert not split.normalized


def test_a_dataset_is_read_anew_each_time_since_it_may_be_random():
    class Counting:
        reads = 0

        def __len__(self):
            return 2

        def __getitem__(self, index):
            Counting.reads += 1
            return torch.full((1, 2, 2), float(Counting.reads)), 0

    split = DatasetSplit("random", Counting())
    assert split.normalized
    assert not torch.equal(split[1][0], split[1][0])


def test_a_damaged_image_is_named():
    split = image_split(read=lambda i: FILES[i][:30] if i == 7 else FILES[i])
    split.batch(np.arange(7))
    with pytest.raises(FormatError, match=r"pictures: image 7 .*30 bytes"):
        split.batch(np.arange(10))


def test_images_of_other_sizes_are_named_and_can_be_resized():
    files = [*FILES[:9], encoded(random_pixels(1, 5, 7, 3)[0])]
    with pytest.raises(InputError, match=r"image 9 .*\(3, 5, 7\).*image_size"):
        ImageSplit("p", files.__getitem__, LABELS, mode="RGB").batch(np.arange(10))
    resized = ImageSplit("p", files.__getitem__, LABELS, mode="RGB", image_size=4).batch(np.arange(10))[0]
    assert torch.equal(resized[:9], IMAGES[:9])


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES[0], LABELS[:3], r"\(N, C, H, W\)"),
        (IMAGES, LABELS[:3], "3 labels"),
        (IMAGES, LABELS + 0.5, "integer"),
        (IMAGES, np.eye(10, dtype=int), "one integer"),
        (IMAGES.int(), LABELS, "uint8"),
    ],
)
def test_unusable_tensors_are_refused(images, labels, message):
    with pytest.raises(InputError, match=message):
        TensorSplit("t", images, labels)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ([], "empty"),
        (iter([1]), "length"),
        ([IMAGES[0]], "image tensor, label"),
        ([(IMAGES[0], "cat")], "integer"),
        ([(IMAGES, 0)], r"\(C, H, W\)"),
        ([("picture", 0)], "image tensor"),
    ],
)
def test_unusable_datasets_are_refused(dataset, message):
    with pytest.raises(InputError, match=message):
        DatasetSplit("d", dataset)


def test_a_source_knows_its_classes_and_shape():
    split = TensorSplit("t", IMAGES, LABELS)
    source = DataSource("s", split, split, ("a", "b", "c"))
    assert source.num_classes == 3
    assert source.image_shape == (3, 4, 4)
    assert DataSource("s", split, split).num_classes is None


@pytest.mark.parametrize(
    ("test", "names", "message"),
    [
        (TensorSplit("t", IMAGES[:0], LABELS[:0]), (), "empty"),
        (TensorSplit("t", IMAGES, LABELS - 1), (), "4 label.* -1"),
        (TensorSplit("t", IMAGES, LABELS + 1), ("a", "b", "c"), "3 classes, first 3"),
        (TensorSplit("t", IMAGES.float(), LABELS), (), "float"),
        (TensorSplit("t", IMAGES[:, :, :2], LABELS), (), r"\(3, 2, 4\)"),
    ],
)
def test_sources_whose_parts_do_not_fit_are_refused(test, names, message):
    with pytest.raises(InputError, match=message):
        DataSource("s", TensorSplit("train", IMAGES, LABELS), test, names)
