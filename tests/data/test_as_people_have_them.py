"""Folders and tables as people have them: text labels, hidden files, grey beside colour, names in messages."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pictures import encoded, random_pixels
from PIL import Image

from whyprune.data import DataSource, TensorSplit, load_source
from whyprune.data.splits import integer_labels
from whyprune.errors import FormatError, InputError

GREY, COLOUR = random_pixels(6, 4, 4), random_pixels(6, 4, 4, 3)


def folder(root, pixels=COLOUR):
    for part in ("train", "test"):
        for index, image in enumerate(pixels):
            path = root / part / ["ant", "bee", "cow"][index // 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(image))
    return f"imagefolder:{root}"


def table(root, train, test=None, kind=None, name="label"):
    root.mkdir(exist_ok=True)
    for part, labels in (("train", train), ("test", train if test is None else test)):
        images = [encoded(COLOUR[i % 6]) for i in range(len(labels))]
        held = pa.array(labels, kind) if kind else pa.array(labels)
        pq.write_table(pa.table({"image": pa.array(images, pa.binary()), name: held}), root / f"{part}.parquet")
    return f"parquet:{root}"


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_text_labels_are_numbered_in_alphabetical_order_and_it_is_said(tmp_path, kind):
    source = load_source(table(tmp_path / "t", ["owl", "cat", "owl", "dog"], ["dog", "owl"], kind))
    assert source.class_names == ("cat", "dog", "owl")
    assert source.train.labels.tolist() == [2, 0, 2, 1]
    assert source.test.labels.tolist() == [1, 2]
    assert "labels are text, numbered in alphabetical order: 'cat' is 0, 'dog' is 1, 'owl' is 2" in source.notes[0]


def test_a_column_of_numbers_goes_before_one_of_text(tmp_path):
    source = load_source(table(tmp_path / "t", [1, 0, 1]))
    assert source.notes == ()


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        (["cat", "dog"], ["cat", "yak"], r"classes \['yak'\] that no training image has"),
        ([f"a photo of {i}" for i in range(30)], ["a photo of 1"], "30 different texts for 30 images.*no classes"),
        (["cat", None], None, "1 nulls"),
    ],
)
def test_texts_that_are_no_classes_are_refused(tmp_path, train, test, words):
    with pytest.raises(InputError, match=words):
        load_source(table(tmp_path / "t", train, test))


@pytest.mark.parametrize("labels", [np.array(["cat", "dog"]), np.array([{}, {}])])
def test_labels_that_are_no_numbers_say_what_to_give(labels):
    with pytest.raises(InputError, match=r"text or objects, such as .*give one integer class"):
        integer_labels("mine", labels)


def test_files_of_systems_and_editors_are_no_images(tmp_path):
    spec = folder(tmp_path)
    plain = load_source(spec).train
    for name in (".DS_Store", "._0.png", "Thumbs.db", ".ipynb_checkpoints/0-checkpoint.png", "__MACOSX/0.png"):
        path = tmp_path / "train" / "ant" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no image")
    for name in (".ipynb_checkpoints", "__MACOSX"):
        (tmp_path / "train" / name).mkdir()
    source = load_source(spec)
    assert source.class_names == ("ant", "bee", "cow")
    assert torch.equal(source.train.batch(np.arange(6))[0], plain.batch(np.arange(6))[0])


def test_messages_name_files_and_never_addresses(tmp_path):
    spec = folder(tmp_path)
    source = load_source(spec)
    (tmp_path / "train" / "bee" / "2.png").write_bytes(b"no image")
    with pytest.raises(FormatError, match=r"bee.2\.png\) .*no image in a known format") as caught:
        source.train.batch(np.arange(6))
    assert "0x" not in str(caught.value)
    (tmp_path / "train" / "ant" / "0.png").write_bytes(b"no image")
    with pytest.raises(FormatError, match=r"cannot be opened \(ant.0\.png; \d+ bytes") as caught:
        load_source(spec)
    assert "0x" not in str(caught.value)


def test_rows_of_tables_are_named_by_their_file(tmp_path):
    spec = table(tmp_path / "t", [0, 1, 0])
    pq.write_table(
        pa.table({"image": pa.array([encoded(COLOUR[0]), b"no image"]), "label": [0, 1]}),
        tmp_path / "t" / "test.parquet",
    )
    with pytest.raises(FormatError, match=r"row 1 of test\.parquet"):
        load_source(spec).test.batch(np.arange(2))


def test_deep_images_are_refused_by_name(tmp_path):
    spec = folder(tmp_path, GREY)
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(tmp_path / "train" / "ant" / "0.png")
    with pytest.raises(FormatError, match=r"ant.0\.png\) has more than 8 bits per channel.*save it as 8-bit"):
        load_source(spec).train.batch(np.arange(2))


def test_grey_images_become_three_equal_channels(tmp_path):
    source = load_source(folder(tmp_path, GREY))
    colour = source.with_channels(3)
    images, labels = colour.train.batch(np.arange(6))
    assert colour.image_shape == (3, 4, 4)
    assert all(torch.equal(images[:, c], torch.from_numpy(GREY)) for c in range(3))
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert "three equal channels" in colour.notes[0]
    assert source.with_channels(1) is source


def test_colour_becomes_grey_as_pillow_makes_it(tmp_path):
    grey = load_source(folder(tmp_path)).with_channels(1)
    expected = np.stack([np.asarray(Image.fromarray(p).convert("L")) for p in COLOUR])
    assert torch.equal(grey.train.batch(np.arange(6))[0][:, 0], torch.from_numpy(expected))


@pytest.mark.parametrize(("channels", "wanted"), [(2, 3), (3, 4), (3, 1)])
def test_other_channels_cannot_be_made(channels, wanted):
    part = TensorSplit("mine", torch.rand(2, channels, 4, 4), [0, 1])
    with pytest.raises(InputError, match=f"images of {channels} channels, and the network takes {wanted}"):
        DataSource("mine", part, part).with_channels(wanted)
