"""Accuracy against hand-made networks; intervals against their defining equations and by simulation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from whyprune.data.batches import Batch
from whyprune.devices import accuracy, paired_difference
from whyprune.errors import InputError


class Echo(nn.Module):
    """Logits are the inputs, so that a test decides every prediction."""

    def forward(self, x):
        return x


def one_hot(predictions, classes=3):
    return torch.nn.functional.one_hot(torch.as_tensor(predictions), classes).float()


def batches(predictions, labels, size=4):
    x, y = one_hot(predictions), torch.as_tensor(labels)
    return [Batch((x[i : i + size],), {}, y[i : i + size]) for i in range(0, len(x), size)]


@given(pairs=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
def test_counts_each_image_once_in_order(pairs):
    predictions, labels = zip(*pairs, strict=True)
    found = accuracy(Echo(), batches(predictions, labels), progress=False)
    expected = [p == y for p, y in pairs]
    assert found.correct.dtype == bool
    assert found.correct.tolist() == expected
    assert found.images == len(pairs)
    assert found.top1_percent == pytest.approx(100 * sum(expected) / len(pairs))


@given(right=st.integers(0, 30), wrong=st.integers(0, 30))
def test_wilson_bounds_solve_the_score_equation(right, wrong):
    """Wilson's bounds are the p with |p_hat - p| = z sqrt(p (1 - p) / n)."""
    n = right + wrong
    if n == 0:
        return
    found = accuracy(Echo(), batches([0] * n, [0] * right + [1] * wrong), progress=False)
    z = 1.959963984540054
    for bound in found.interval_percent:
        p = bound / 100
        assert abs(right / n - p) == pytest.approx(z * np.sqrt(max(p * (1 - p), 0) / n), abs=1e-6)
    assert found.interval_percent[0] <= found.top1_percent + 1e-9
    assert found.interval_percent[1] >= found.top1_percent - 1e-9


def test_modes_come_back_and_evaluation_mode_is_used():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.9), Echo())
    model[0].eval()
    before = [m.training for m in model.modules()]
    mean = model[0].running_mean.clone()
    found = [accuracy(model, batches([0, 1, 2], [0, 1, 2]), progress=False) for _ in range(2)]
    assert [m.training for m in model.modules()] == before
    assert found[0].top1_percent == 100
    assert found[0].correct.tolist() == found[1].correct.tolist()
    torch.testing.assert_close(model[0].running_mean, mean)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ([], "no batches"),
        ([Batch((one_hot([0, 1]),), {})], "no labels"),
        ([Batch((one_hot([0, 1]),), {}, torch.tensor([0, 3]))], "3 classes"),
        ([Batch((one_hot([0, 1]),), {}, torch.tensor([-1, 0]))], "-1"),
        ([Batch((one_hot([0, 1]),), {}, torch.tensor([0.0, 1.0]))], "float32"),
        ([Batch((one_hot([0, 1]),), {}, torch.zeros(2, 3, dtype=torch.long))], r"\(2, 3\)"),
        ([Batch((torch.full((2, 3), torch.inf),), {}, torch.tensor([0, 1]))], "NaN"),
        ([Batch((torch.zeros(2, 3, 4),), {}, torch.tensor([0, 1]))], r"\(2, 3, 4\)"),
        ([Batch((one_hot([0, 1]), one_hot([0, 1])), {}, torch.tensor([0, 1]))], "failed on inputs"),
    ],
)
def test_refuses_unusable_data(bad, says):
    with pytest.raises(InputError, match=says):
        accuracy(Echo(), bad, progress=False)


@given(
    pairs=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60),
)
def test_paired_difference_is_exact_antisymmetric_and_covered(pairs):
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    difference, (low, high) = paired_difference(a, b)
    assert difference == pytest.approx(100 * (a.mean() - b.mean()))
    assert low <= difference <= high
    back, (back_low, back_high) = paired_difference(b, a)
    assert (back, back_low, back_high) == pytest.approx((-difference, -high, -low))
    assert -100 <= low <= high <= 100


def test_paired_interval_covers_the_truth_and_beats_independent_ones():
    """a is right on 0.8 of images, b flips 0.1 of a's right and 0.02 of its wrong: the truth is known."""
    rng = np.random.default_rng(0)
    truth = 100 * (0.8 * 0.1 - 0.2 * 0.1)
    covered, widths = 0, []
    for _ in range(400):
        a = rng.random(300) < 0.8
        b = a ^ (rng.random(300) < 0.1)
        _, (low, high) = paired_difference(a, b)
        covered += low <= truth <= high
        widths.append(high - low)
    assert 0.92 <= covered / 400 <= 0.985
    independent = 100 * 2 * 1.96 * np.sqrt((0.8 * 0.2 + 0.74 * 0.26) / 300)
    assert np.mean(widths) < 0.8 * independent


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.array([], dtype=bool), np.array([], dtype=bool)),
        (np.ones(3, dtype=bool), np.ones(4, dtype=bool)),
        (np.ones(3), np.ones(3)),
        (np.ones((2, 2), dtype=bool), np.ones((2, 2), dtype=bool)),
    ],
)
def test_paired_difference_refuses_arrays_that_are_not_paired(a, b):
    with pytest.raises(InputError, match="boolean arrays"):
        paired_difference(a, b)
