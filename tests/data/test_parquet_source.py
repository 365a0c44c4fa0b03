"""Images and labels written to Parquet files come back, whatever the columns are called; damage is named."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pictures import encoded, random_pixels

from whyprune.data import Normalization, load_source
from whyprune.data.sources import parquet
from whyprune.errors import FormatError, InputError

NAMES = ["cat", "dog", "owl"]
PIXELS = random_pixels(12, 4, 4, 3)
IMAGES = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
FILES = [encoded(p, "WEBP") for p in PIXELS]
LABELS = [i % 3 for i in range(12)]


def table(files=FILES, labels=LABELS, *, image="img", label="label", names=NAMES, struct=True):
    values = [{"bytes": f, "path": None} for f in files] if struct else files
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary()
    schema = pa.schema([(image, kind), (label, pa.int64())])
    if names:
        features = {label: {"names": names, "_type": "ClassLabel"}, image: {"_type": "Image"}}
        schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    return pa.table([values, labels], schema=schema)


def write(folder, train=None, test=None, test_name="test-00000-of-00001"):
    """A folder with the training images in two files of small row groups."""
    folder.mkdir(parents=True, exist_ok=True)
    train = table() if train is None else train
    half = len(train) // 2
    pq.write_table(train.slice(0, half), folder / "train-00000-of-00002.parquet", row_group_size=4)
    pq.write_table(train.slice(half), folder / "train-00001-of-00002.parquet", row_group_size=4)
    pq.write_table(train if test is None else test, folder / f"{test_name}.parquet")
    return f"parquet:{folder}"


def everything(split):
    return split.batch(np.arange(len(split)))


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"image": "image", "label": "labels"},
        {"image": "picture", "label": "fine_label"},
        {"image": "x", "label": "y", "struct": False},
    ],
)
def test_the_images_come_back_in_order(tmp_path, columns):
    source = load_source(write(tmp_path, table(**columns)))
    for split in (source.train, source.test):
        images, labels = everything(split)
        assert torch.equal(images, IMAGES)
        assert labels.tolist() == LABELS
    assert source.class_names == tuple(NAMES)
    assert source.image_shape == (3, 4, 4)


def test_any_order_and_little_memory_give_the_same_images(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "ENCODED_BYTES", 1)
    split = load_source(write(tmp_path)).train
    order = np.random.default_rng(0).permutation(12)
    assert torch.equal(torch.stack([split[int(i)][0] for i in order]), IMAGES[order])


@pytest.mark.parametrize("test_name", ["validation-00000-of-00001", "test"])
def test_other_names_of_the_test_file(tmp_path, test_name):
    assert len(load_source(write(tmp_path / "data", test_name=test_name).removesuffix("/data")).test) == 12


def test_grey_images_have_one_channel(tmp_path):
    files = [encoded(p[:, :, 0]) for p in PIXELS]
    assert torch.equal(everything(load_source(write(tmp_path, table(files))).train)[0], IMAGES[:, :1])


def test_classes_without_names_are_numbers(tmp_path):
    assert load_source(write(tmp_path, table(names=None))).class_names == ("0", "1", "2")


def test_image_size_resizes(tmp_path):
    assert load_source(write(tmp_path), image_size=2).image_shape == (3, 2, 2)
    with pytest.raises(InputError, match="image_size is 0"):
        load_source(write(tmp_path), image_size=0)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (table(labels=[-1, *LABELS[1:]]), InputError, "out of range .*first -1"),
        (table(labels=[*LABELS[1:], 3]), InputError, "3 classes, first 3"),
        (table(labels=[None, *LABELS[1:]]), InputError, "1 nulls"),
        (table().slice(0, 0), InputError, "empty"),
        (table(files=[b"not an image"] * 12), FormatError, "image 0 cannot be opened"),
        (table(files=[None] * 12), FormatError, "holds no bytes"),
        (table().drop_columns(["label"]), FormatError, "no label column"),
        (table().drop_columns(["img"]), FormatError, "no image column"),
        (
            table(image="a").append_column("b", table()["img"]),
            FormatError,
            "more than one possible image column",
        ),
    ],
)
def test_unusable_tables_are_refused(tmp_path, bad, error, message):
    with pytest.raises(error, match=message):
        load_source(write(tmp_path, bad))


def test_a_truncated_image_is_named_when_it_is_used(tmp_path):
    files = [*FILES[:9], FILES[9][:40], *FILES[10:]]
    split = load_source(write(tmp_path, table(files), table())).train
    assert torch.equal(split[8][0], IMAGES[8])
    with pytest.raises(FormatError, match=r"train: image 9 .*40 bytes"):
        split.batch(np.arange(12))


@pytest.mark.parametrize("kept", [0, 3, 100, 0.5, 0.95])
def test_a_truncated_file_is_named(tmp_path, kept):
    spec = write(tmp_path)
    path = tmp_path / "train-00001-of-00002.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(FormatError, match=r"train-00001-of-00002\.parquet"):
        load_source(spec)


def test_a_file_that_vanishes_is_named(tmp_path):
    source = load_source(write(tmp_path))
    (tmp_path / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(FormatError, match=r"train-00001-of-00002\.parquet"):
        source.train[11]


def test_missing_folders_and_files_are_named(tmp_path):
    with pytest.raises(FormatError, match="is no folder"):
        load_source(f"parquet:{tmp_path / 'none'}")
    with pytest.raises(FormatError, match=r"holds no train-\*\.parquet"):
        load_source(f"parquet:{tmp_path}")


@pytest.mark.data
@pytest.mark.skipif("WHYPRUNE_DATA" not in os.environ, reason="WHYPRUNE_DATA names no CIFAR-10 files")
def test_cifar10():
    source = load_source(f"parquet:{Path(os.environ['WHYPRUNE_DATA'], 'cifar10')}")
    assert (len(source.train), len(source.test)) == (50_000, 10_000)
    assert source.image_shape == (3, 32, 32)
    assert source.num_classes == 10
    assert source.class_names[3] == "cat"
    # The published mean and standard deviation, to the error of a sample of 10,000 images.
    pixels = Normalization.of(source.test)
    np.testing.assert_allclose(pixels.mean, (0.4914, 0.4822, 0.4465), atol=0.01)
    np.testing.assert_allclose(pixels.std, (0.2470, 0.2435, 0.2616), atol=0.01)
