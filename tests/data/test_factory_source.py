"""Data and models from the user's own module in the current directory."""

import sys

import pytest
import torch

from whyprune.data import DataSource, load_source
from whyprune.errors import InputError

MODULE = """
import torch
from torch.utils.data import TensorDataset
from whyprune.data import DataSource, TensorSplit
from whyprune.errors import FormatError

X, Y = torch.arange(48.0).view(6, 2, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])

def pair():
    return TensorDataset(X, Y), TensorDataset(X[:3], Y[:3])

def named():
    train, test = pair()
    train.classes = ["a", "b", "c"]
    return train, test

def source():
    split = TensorSplit("mine", X, Y)
    return DataSource("mine", split, split, ("a", "b", "c"))

class Place:
    @staticmethod
    def make():
        import helper_beside
        return helper_beside.pair()

def empty():
    return TensorDataset(X[:0], Y[:0]), TensorDataset(X, Y)


def number():
    return 3

def broken():
    return 1 / 0

def refused():
    raise FormatError("my own words")
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module in the current directory, and a helper beside it."""
    name = "factory_under_test"
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / "helper_beside.py").write_text(f"from {name} import pair\n")
    monkeypatch.chdir(tmp_path)
    yield name
    for made in (name, "helper_beside"):
        sys.modules.pop(made, None)


@pytest.mark.parametrize(("factory", "classes"), [("pair", 0), ("named", 3), ("source", 3), ("Place.make", 0)])
def test_every_form_gives_the_same_images(module, factory, classes):
    source = load_source(f"{module}:{factory}")
    assert isinstance(source, DataSource)
    assert len(source.class_names) == classes
    assert source.train.normalized
    images = torch.stack([image for image, _ in source.train])
    assert torch.equal(images, torch.arange(48.0).view(6, 2, 2, 2))
    assert [label for _, label in source.train] == [0, 1, 2, 0, 1, 2]


def test_the_import_path_is_as_before(module):
    before = list(sys.path)
    load_source(f"{module}:pair")
    with pytest.raises(InputError):
        load_source(f"{module}:broken")
    assert sys.path == before


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{}:number", "returned a int"),
        ("{}:broken", "ZeroDivisionError"),
        ("{}:none", "none"),
        ("{}:X", "failed"),
        ("no_such_module_here:pair", "no_such_module_here"),
        ("{}:empty", "empty"),
    ],
)
def test_factories_that_give_no_data_are_refused(module, spec, message):
    with pytest.raises(InputError, match=message):
        load_source(spec.format(module))


def test_a_factorys_own_refusal_passes_through(module):
    with pytest.raises(Exception, match=r"^my own words$"):
        load_source(f"{module}:refused")


def test_images_cannot_be_resized(module):
    assert load_source(f"{module}:pair", image_size=2).image_shape == (2, 2, 2)
    with pytest.raises(InputError, match="cannot resize"):
        load_source(f"{module}:pair", image_size=3)
