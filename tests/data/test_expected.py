"""Every batch that is not what the network was traced on is matched without loss, or refused in words that help."""

import numpy as np
import pytest
import torch

from whyprune.data import Batch
from whyprune.data.batches import joined
from whyprune.data.expected import expected_batch
from whyprune.errors import InputError

X = torch.rand(4, 3, 6, 6)
Y = torch.tensor([2, 0, 1, 2])
IMAGE = Batch((X[:2],), {})
TEXT = {"input_ids": torch.ones(4, 5, dtype=torch.int64), "attention_mask": torch.ones(4, 5, dtype=torch.int64)}
WORDS = Batch((), {name: value[:2] for name, value in TEXT.items()})


@pytest.mark.parametrize(
    "raw", [X, (X, Y), [X], (X.numpy(), Y.numpy()), X.double(), X.half().float(), X.double().numpy(), Batch((X,), {})]
)
def test_what_holds_the_same_values_is_taken_as_the_network_takes_it(raw):
    batch = expected_batch(raw, IMAGE)
    assert batch.args[0].dtype == torch.float32
    assert torch.allclose(batch.args[0], X, atol=1e-3)


def test_a_conversion_is_said_once_for_all_batches():
    notes = []
    for _ in range(3):
        expected_batch(X.half(), IMAGE, "the test data", notes)
    assert notes == ["Input 1 of the test data is float16: it is converted to float32, as the model was traced."]
    assert not expected_batch(X, IMAGE, notes=(none := [])).kwargs
    assert none == []


def test_masks_of_another_kind_of_integer_hold_the_same_values():
    narrow = {name: value.int() for name, value in TEXT.items()} | {"attention_mask": TEXT["attention_mask"].bool()}
    batch = expected_batch(narrow, WORDS)
    assert all(torch.equal(batch.kwargs[name], value) for name, value in TEXT.items())
    assert all(value.dtype == torch.int64 for value in batch.kwargs.values())


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (
            (X * 255).byte(),
            [r"\(B, 3, 6, 6\) uint8", r"traced with \(B, 3, 6, 6\) float32", "normalise it as in training"],
        ),
        (X.double() * 1e300, ["beyond its range", "scale the data"]),
        ((Y, X), [r"\(B,\) int64 first", r"give \(inputs, labels\)"]),
        (X[0], [r"\(3, 6, 6\) float32", r"one sample is x\[None\]"]),
        (X[None], ["dimensions that are too many"]),
        ({"x": X}, ["a dict with the keys 'x'", "one tensor", "example_inputs as a dict"]),
        ((["a.png", "b.png"], Y[:2]), ["no input tensor but list", "give a tensor"]),
    ],
)
def test_images_that_do_not_fit_are_refused_with_what_was_expected_and_what_came(raw, words):
    for word in words:
        with pytest.raises(InputError, match=word):
            expected_batch(raw, IMAGE)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (TEXT["input_ids"], ["one tensor", "keys 'input_ids', 'attention_mask'", "every batch as a dict"]),
        ({"input_ids": TEXT["input_ids"]}, ["lacks 'attention_mask'", "the same keys in every batch"]),
        ({**TEXT, "idx": Y}, ["has 'idx' as well", "labels go under 'labels'"]),
        ({"ids": TEXT["input_ids"], "attention_mask": Y}, ["lacks 'input_ids' and has 'ids' as well"]),
        ({**TEXT, "input_ids": TEXT["input_ids"].float()}, ["'input_ids'", "float32", "convert it to int64"]),
        ({**TEXT, "input_ids": TEXT["input_ids"].tolist()}, ["'input_ids'", "list", "give tensors"]),
    ],
)
def test_dicts_that_do_not_fit_are_refused_by_the_names_that_are_wrong(raw, words):
    for word in words:
        with pytest.raises(InputError, match=word):
            expected_batch(raw, WORDS)


def test_several_positional_inputs_are_counted():
    example = Batch((X, X), {})
    with pytest.raises(InputError, match=r"1 positional inputs.*with 2.*\(inputs, inputs, labels\)"):
        expected_batch(X, example)
    assert len(expected_batch((X, X, Y), example).args) == 2


def test_flags_may_be_left_out_and_must_not_differ():
    example = Batch((), {"x": X, "return_dict": True, "mask": None})
    batch = expected_batch({"x": X, "labels": Y}, example)
    assert batch.kwargs["return_dict"] is True
    assert batch.kwargs["mask"] is None
    with pytest.raises(InputError, match=r"'return_dict' .* is False.*with True.*for that value only"):
        expected_batch({"x": X, "return_dict": False}, example)


def test_texts_beside_the_inputs_are_left_out_and_it_is_said():
    notes = []
    batch = expected_batch({**TEXT, "text": ["a", "b", "c", "d"]}, WORDS, notes=notes)
    assert set(batch.kwargs) == set(TEXT)
    assert notes == ["The entries 'text' of the data hold no tensors: they are left out."]


def test_nested_inputs_are_matched_place_by_place():
    example = Batch(({"views": [X, X], "meta": {"scale": Y.float()}},), {})
    raw = {"meta": {"scale": Y.double()}, "views": [X.double(), X]}  # another order of keys, other precisions
    batch = expected_batch((raw, Y), example)
    assert list(batch.args[0]) == ["views", "meta"]
    assert torch.equal(batch.args[0]["meta"]["scale"], Y.float())
    assert torch.equal(batch.args[0]["views"][0], X)
    assert torch.equal(batch.labels, Y)
    with pytest.raises(InputError, match=r"input 1\['views'\].*1 entries.*with 2"):
        expected_batch(({**raw, "views": [X]}, Y), example)
    with pytest.raises(InputError, match=r"input 1\['meta'\].*keys \['size'\].*\['scale'\]"):
        expected_batch(({**raw, "meta": {"size": Y}}, Y), example)
    with pytest.raises(InputError, match=r"input 1\['views'\]\[1\].*uint8"):
        expected_batch(({**raw, "views": [X, X.byte()]}, Y), example)


def test_a_network_that_takes_its_labels_gets_them():
    example = Batch((), {"x": X, "labels": Y})
    batch = expected_batch({"x": X, "labels": Y}, example)
    assert torch.equal(batch.kwargs["labels"], Y)
    assert torch.equal(batch.labels, Y)


def test_nested_batches_are_picked_moved_and_joined():
    batch = Batch(({"a": X, "b": [Y, "text"]},), {}, Y)
    assert len(batch) == 4
    assert [len(t) for t in batch[torch.tensor([3, 1])].tensors()] == [2, 2]
    assert torch.equal(batch[1:3].args[0]["b"][0], Y[1:3])
    assert batch[1:3].args[0]["b"][1] == "text"
    assert batch.channels_last().args[0]["a"].is_contiguous(memory_format=torch.channels_last)
    both = joined([batch[:1], batch[1:]])
    assert torch.equal(both.args[0]["a"], X)
    assert torch.equal(both.labels, Y)
    with pytest.raises(InputError, match="number, names or kind"):
        joined([batch, Batch((X,), {})])
    with pytest.raises(InputError, match=r"several sizes \(.*\(3, 5, 5\).*a method that goes batch by batch: causal"):
        joined([Batch((X,), {}), Batch((X[:, :, :5, :5],), {})])


def test_arrays_of_text_are_no_batches():
    with pytest.raises(InputError, match="ndarray: give tensors"):
        expected_batch(np.array(["a", "b"]), IMAGE)
