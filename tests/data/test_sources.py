"""`load_source` finds the right loader by the form, and `digits` is a fixed, fair split."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from whyprune.data import SOURCES, SourceKind, load_source
from whyprune.errors import InputError


def test_digits_are_split_without_overlap_and_by_class():
    source = load_source("digits")
    assert (len(source.train), len(source.test)) == (1297, 500)
    assert source.image_shape == (1, 8, 8)
    assert source.class_names == tuple("0123456789")
    counts = [np.bincount(split.labels, minlength=10) / len(split) for split in (source.train, source.test)]
    np.testing.assert_allclose(*counts, atol=0.002)  # one image in 500
    parts = [split.batch(np.arange(len(split))) for split in (source.train, source.test)]
    restored = np.concatenate([images[:, 0].numpy().astype(float) / 255 * 16 for images, _ in parts])
    labels = np.concatenate([label.numpy() for _, label in parts])

    def rows(images, classes):
        return sorted((*np.round(i).astype(int).ravel(), c) for i, c in zip(images, classes, strict=True))

    whole = load_digits()
    assert rows(restored, labels) == rows(whole.images, whole.target)


def test_digits_are_always_the_same():
    first, second = load_source("digits"), load_source("digits")
    assert all((a[0] == b[0]).all() and a[1] == b[1] for a, b in zip(first.test, second.test, strict=True))


@pytest.mark.parametrize("spec", ["", "digit", "digits:", "digits:3", "parquet", "parquet:", "hf:", ":", "a b:c", "x:"])
def test_unknown_forms_list_the_known_ones(spec):
    with pytest.raises(InputError, match=r"digits, parquet:FOLDER, hf:NAME, .*package\.module:factory"):
        load_source(spec)


def test_digits_have_one_size():
    assert load_source("digits", image_size=8).image_shape == (1, 8, 8)
    with pytest.raises(InputError, match="cannot resize"):
        load_source("digits", image_size=32)


def test_a_new_kind_needs_only_its_entry(monkeypatch):
    asked = []

    def load(argument, image_size):
        asked.append((argument, image_size))
        return load_source("digits")

    monkeypatch.setitem(SOURCES, "mine", SourceKind("mine:THING", load))
    assert load_source("mine:a:b", image_size=8).name == "digits"
    assert asked == [("a:b", 8)]
    with pytest.raises(InputError, match="mine:THING"):
        load_source("mine:")
