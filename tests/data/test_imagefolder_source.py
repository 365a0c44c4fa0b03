"""Image files in class folders come back with the class of their folder."""

import numpy as np
import pytest
import torch
from pictures import encoded, random_pixels

from whyprune.data import load_source
from whyprune.errors import FormatError, InputError

PIXELS = random_pixels(6, 4, 4, 3)


def write(root, test="test", classes=("ant", "bee", "cow")):
    for part in ("train", test):
        for index, pixels in enumerate(PIXELS):
            path = root / part / classes[index // 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(pixels))
    return f"imagefolder:{root}"


@pytest.mark.parametrize("test", ["test", "val", "validation"])
def test_images_and_classes_come_back(tmp_path, test):
    source = load_source(write(tmp_path, test))
    (tmp_path / "train" / "ant" / "notes.txt").write_text("no image")
    for split in (source.train, source.test):
        images, labels = split.batch(np.arange(6))
        assert torch.equal(images.permute(0, 2, 3, 1), torch.from_numpy(PIXELS))
        assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert source.class_names == ("ant", "bee", "cow")


def test_a_class_keeps_its_number_where_the_test_images_lack_another(tmp_path):
    spec = write(tmp_path)
    for path in (tmp_path / "test" / "ant").iterdir():
        path.unlink()
    (tmp_path / "test" / "ant").rmdir()
    assert load_source(spec).test.batch(np.arange(4))[1].tolist() == [1, 1, 2, 2]


def test_images_of_different_sizes_need_a_size(tmp_path):
    spec = write(tmp_path)
    (tmp_path / "train" / "cow" / "9.png").write_bytes(encoded(random_pixels(1, 9, 7, 3)[0]))
    with pytest.raises(InputError, match="image_size"):
        load_source(spec).train.batch(np.arange(7))
    images, _ = load_source(spec, image_size=4).train.batch(np.arange(7))
    assert images.shape == (7, 3, 4, 4)


def test_folders_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(FormatError, match="no folder train"):
        load_source(f"imagefolder:{tmp_path}")
    spec = write(tmp_path)
    (tmp_path / "test" / "yak").mkdir()
    with pytest.raises(InputError, match="yak"):
        load_source(spec)
    (tmp_path / "train" / "yak").mkdir()
    with pytest.raises(InputError, match=r"no images in the class folders \['yak'\]"):
        load_source(spec)


def test_no_classes_and_damaged_files_are_named(tmp_path):
    (tmp_path / "a" / "train").mkdir(parents=True)
    (tmp_path / "a" / "test").mkdir()
    with pytest.raises(InputError, match="empty"):
        load_source(f"imagefolder:{tmp_path / 'a'}")
    spec = write(tmp_path / "b")
    (tmp_path / "b" / "train" / "ant" / "1.png").write_bytes(encoded(PIXELS[1])[:30])
    source = load_source(spec)
    with pytest.raises(FormatError, match="image 1 "):
        source.train.batch(np.arange(6))
