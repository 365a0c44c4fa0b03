"""Normalisation against its formula, and what a card may and may not say."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pictures import random_pixels

from whyprune.data import Normalization, TensorSplit
from whyprune.errors import FormatError, InputError

numbers = st.floats(-5, 5)
positive = st.floats(0.01, 5)


@given(st.lists(st.tuples(numbers, positive), min_size=1, max_size=4))
def test_pixels_are_scaled_then_normalised_per_channel(channels):
    mean, std = zip(*channels, strict=True)
    pixels = random_pixels(2, len(channels), 3, 3)
    result = Normalization(mean, std, "test")(torch.from_numpy(pixels))
    each = (np.float64(pixels) / 255 - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), each, rtol=1e-4, atol=1e-4)


def test_normalising_leaves_the_pixels_alone():
    pixels = torch.from_numpy(random_pixels(2, 1, 3, 3))
    before = pixels.clone()
    Normalization((0.5,), (0.5,), "test")(pixels)
    assert torch.equal(pixels, before)


@given(st.lists(st.tuples(numbers, positive), min_size=1, max_size=4), st.text())
def test_a_dict_in_json_gives_it_back(channels, origin):
    mean, std = zip(*channels, strict=True)
    normalization = Normalization(mean, std, origin)
    assert Normalization.from_dict(json.loads(json.dumps(normalization.as_dict()))) == normalization


@given(st.integers(0, 100))
def test_pixels_normalised_by_their_own_have_mean_0_and_std_1(seed):
    images = torch.from_numpy(random_pixels(5, 2, 4, 4, seed=seed))
    result = Normalization.of(TensorSplit("t", images, [0] * 5))(images)
    assert result.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    assert (result.std(dim=(0, 2, 3), correction=0) - 1).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((), ()),
        ((0.5,), (0.5, 0.5)),
        ((0.5,), (0.0,)),
        ((0.5,), (-1.0,)),
        ((float("nan"),), (1.0,)),
        ((0.5,), (float("inf"),)),
    ],
)
def test_unusable_numbers_are_refused(mean, std):
    with pytest.raises(InputError, match="mean"):
        Normalization(mean, std, "test")


def test_other_images_are_refused():
    normalization = Normalization((0.5,) * 3, (0.5,) * 3, "test")
    with pytest.raises(InputError, match=r"3 channel\(s\) \(test\)"):
        normalization(torch.zeros(2, 1, 4, 4, dtype=torch.uint8))
    with pytest.raises(InputError, match="float32"):
        normalization(torch.zeros(2, 3, 4, 4))
    with pytest.raises(InputError, match="already normalised"):
        Normalization.of(TensorSplit("t", torch.zeros(2, 3, 4, 4), [0, 1]))
    with pytest.raises(InputError, match="above 0"):
        Normalization.of(TensorSplit("t", torch.zeros(2, 3, 4, 4, dtype=torch.uint8), [0, 1]))


TEXT = "RGB, float32 in [0,1], normalised by mean (0.1, 0.2, 0.3) and std (0.4, 0.5, 0.6)"


@pytest.mark.parametrize(
    "card",
    [
        {"input": TEXT},
        {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
        {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input": "mean (9) and std (9)"},
        {"input": "mean = [0.1,0.2,0.3], std = [0.4,0.5,0.6]"},
    ],
)
def test_a_card_states_mean_and_std(tmp_path, card):
    path = tmp_path / "net.json"
    path.write_text(json.dumps(card))
    normalization = Normalization.from_card(path)
    assert normalization.mean == (0.1, 0.2, 0.3)
    assert normalization.std == (0.4, 0.5, 0.6)
    assert "net.json" in normalization.origin


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1, 2]",
        "{}",
        '{"input": 3}',
        '{"input": "mean (0.1, 0.2)"}',
        '{"input": "mean (a) and std (b)"}',
        '{"input": "mean (0.1) and std (0)"}',
        '{"mean": [0.1]}',
        '{"mean": "0.1", "std": "0.2"}',
        '{"mean": [null], "std": [0.1]}',
        '{"mean": [NaN], "std": [0.1]}',
        '{"std": [0.1], "input": "mean (0.1) and std (0.2)"}',
    ],
)
def test_a_malformed_card_is_refused(tmp_path, text):
    path = tmp_path / "net.json"
    path.write_text(text)
    with pytest.raises(FormatError, match=r"net\.json"):
        Normalization.from_card(path)


def test_a_missing_card_and_a_malformed_dict_are_refused(tmp_path):
    with pytest.raises(FormatError, match="cannot be read"):
        Normalization.from_card(tmp_path / "none.json")
    for fields in ({}, {"mean": [0.1], "std": [0.1]}, {"mean": 0.1, "std": [0.1], "origin": "x"}):
        with pytest.raises(FormatError, match="no normalisation"):
            Normalization.from_dict(fields)
