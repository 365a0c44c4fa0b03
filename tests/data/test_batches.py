"""Every kind of raw batch reads as the same inputs and labels."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from whyprune.data import Batch, as_batch, as_batches
from whyprune.errors import InputError

X = torch.arange(12.0).view(4, 3)
Y = torch.tensor([2, 0, 1, 2])


class Sum(nn.Module):
    def forward(self, a, b=None):
        return a if b is None else a + b


@pytest.mark.parametrize("raw", [X, (X,), [X, Y], (X, Y), (X, Y.tolist()), (X, Y, ["file"])])
def test_positional_forms_give_the_same_inputs(raw):
    batch = as_batch(raw)
    assert torch.equal(batch.args[0], X)
    assert batch.kwargs == {}
    has_labels = not isinstance(raw, torch.Tensor) and len(raw) > 1
    assert (batch.labels is not None) == has_labels
    if has_labels:
        assert torch.equal(batch.labels, Y)


@pytest.mark.parametrize("key", ["labels", "label", "target", "targets"])
def test_labels_of_a_dict_are_not_inputs(key):
    batch = as_batch({"a": X, "b": X, key: Y})
    assert set(batch.kwargs) == {"a", "b"}
    assert torch.equal(batch.labels, Y)


def test_positional_and_keyword_calls_agree():
    model = Sum()
    positional = as_batch((X, 2 * X, Y), positional=2).call(model)
    assert torch.equal(positional, as_batch({"a": X, "b": 2 * X}).call(model))
    assert torch.equal(positional, 3 * X)


def test_a_batch_reads_as_itself():
    batch = as_batch((X, Y))
    assert as_batch(batch) is batch


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_picking_rows_commutes_with_the_model(rows):
    index = torch.tensor(rows)
    batch = Batch((X,), {"b": 2 * X}, Y)
    picked = batch[index]
    assert torch.equal(picked.call(Sum()), batch.call(Sum())[index])
    assert torch.equal(picked.labels, Y[index])
    assert len(picked) == len(rows)


def test_slices_put_together_give_the_batch():
    batch = as_batch((X, Y))
    parts = [batch[0:1], batch[1:4]]
    assert torch.equal(torch.cat([p.args[0] for p in parts]), X)
    assert torch.equal(torch.cat([p.labels for p in parts]), Y)


def test_moving_keeps_values_and_types():
    moved = Batch((X, "name"), {"b": Y}, Y).to("cpu")
    assert moved.args[1] == "name"
    assert torch.equal(moved.args[0], X)
    assert moved.labels.dtype == torch.int64


def test_a_tensor_or_a_dict_is_one_batch_and_a_list_is_many():
    assert len(list(as_batches(X))) == 1
    assert len(list(as_batches({"a": X}))) == 1
    assert [len(b) for b in as_batches([(X, Y), X[:2]])] == [4, 2]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("text", "str"),
        (7, "int"),
        ({"labels": Y}, "no input tensor"),
        ((X, Y[:3]), "lengths"),
        ((X, 3), "single value 3"),
        ((X, torch.tensor(3)), "one per input"),
        ((X, ["cat", "dog", "cat", "dog"]), "one integer per input"),
        ({"a": X, "labels": 3}, "single value 3"),
        ({"a": X, "b": X[:2]}, "lengths"),
        (X[:0], "0"),
        (torch.tensor(1.0), "0"),
        (torch.tensor([[1.0, float("nan")]]), "NaN"),
        (torch.tensor([[1.0, float("inf")]]), "infinite"),
    ],
)
def test_unusable_batches_are_refused(raw, message):
    with pytest.raises(InputError, match=message):
        as_batch(raw)
