"""`hf:` gives what `datasets` loads: here from local folders, without a network."""

import sys

import numpy as np
import pytest
import torch
from pictures import encoded, random_pixels

from whyprune.data import load_source
from whyprune.errors import InputError, MissingDependencyError

PIXELS = random_pixels(6, 4, 4, 3)
LABELS = [0, 1, 0, 1, 0, 1]


@pytest.fixture
def offline(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return datasets


def parts(datasets):
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    images = [{"bytes": encoded(p), "path": None} for p in PIXELS]
    return datasets.Dataset.from_dict({"img": images, "label": LABELS}, features)


def test_a_data_set_of_bytes(offline, tmp_path):
    for name in ("train", "test"):
        parts(offline).to_parquet(str(tmp_path / "set" / f"{name}-00000-of-00001.parquet"))
    source = load_source(f"hf:{tmp_path / 'set'}")
    images, labels = source.train.batch(np.arange(6))
    assert torch.equal(images.permute(0, 2, 3, 1), torch.from_numpy(PIXELS))
    assert labels.tolist() == LABELS
    assert source.class_names == ("a", "b")


def test_a_data_set_of_files(offline, tmp_path):
    for part in ("train", "test"):
        for index, pixels in enumerate(PIXELS):
            path = tmp_path / "set" / part / "ab"[LABELS[index]] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(pixels))
    source = load_source(f"hf:{tmp_path / 'set'}")
    images, labels = source.train.batch(np.arange(6))
    assert torch.equal(images.permute(0, 2, 3, 1), torch.from_numpy(PIXELS[[0, 2, 4, 1, 3, 5]]))
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_missing_split_or_data_set_is_named(offline, tmp_path):
    parts(offline).to_parquet(str(tmp_path / "set" / "train-00000-of-00001.parquet"))
    with pytest.raises(InputError, match="has the splits train"):
        load_source(f"hf:{tmp_path / 'set'}")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_source(f"hf:{tmp_path / 'none'}")


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match=r"whyprune\[hub\]"):
        load_source("hf:cifar10")
