"""Datasets, generators and lists become batches that can be read again and hold the same samples."""

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from whyprune.data import Batch, as_batch
from whyprune.data import opened as module
from whyprune.data.opened import length_of, opened
from whyprune.errors import InputError

X, Y = torch.rand(150, 3, 4, 4), torch.arange(150) % 5
EXAMPLE = Batch((X[:2],), {})


class Items(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i], int(Y[i])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(Items()[i] for i in range(len(X)))


class Table:
    """Rows as tables give them: lists of numbers."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        if i >= len(self):
            raise IndexError
        return {"x": X[i].tolist(), "label": int(Y[i])}


def read(data, example=EXAMPLE):
    batches, note = opened(data, example)
    for _ in range(2):
        images = [as_batch(raw) for raw in batches]
        assert torch.equal(torch.cat([b.tensors()[0] for b in images]), X)
    return note, images


@pytest.mark.parametrize("data", [Items(), TensorDataset(X, Y), Stream(), [Items()[i] for i in range(150)], list(X)])
def test_single_samples_are_put_into_batches_and_it_is_said(data):
    note, batches = read(data)
    assert "DataLoader gives 64 at a time" in note
    assert [len(b) for b in batches] == [64, 64, 22]


def test_rows_of_a_table_become_tensors():
    note, batches = read(Table(), Batch((), {"x": X[:2]}))
    assert note
    assert torch.equal(torch.cat([b.labels for b in batches]), Y)


@pytest.mark.parametrize(
    "data",
    [[X[:100], X[100:]], (b for b in X.split(50)), zip(X.split(50), Y.split(50), strict=True), DataLoader(X, 40), X],
)
def test_batches_are_read_as_they_are_as_often_as_one_likes(data):
    note, _ = read(data)
    assert note == ""


def test_a_generator_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match=r"generator of more than .*read only once.*DataLoader or a list"):
        opened((b for b in X.split(50)), EXAMPLE, "the test data")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("cifar10", "the data is a str: give a DataLoader"),
        (7, "the data is a int"),
        (Table.__new__(type("Empty", (Table,), {"__len__": lambda _: 0})), "is empty"),
    ],
)
def test_what_is_no_data_is_refused(data, words):
    with pytest.raises(InputError, match=words):
        opened(data, EXAMPLE)


def test_samples_that_do_not_stack_are_refused_by_their_sizes():
    batches, _ = opened([torch.rand(3, 4, 4), torch.rand(3, 5, 4)], EXAMPLE, "the test data")
    with pytest.raises(InputError, match=r"of the test data do not stack.*\(3, 4, 4\), \(3, 5, 4\).*pad or resize"):
        list(batches)


def test_lengths_are_known_where_they_can_be():
    assert length_of([1, 2]) == 2
    assert length_of(X) is None
    assert length_of(DataLoader(Stream(), 4)) is None
