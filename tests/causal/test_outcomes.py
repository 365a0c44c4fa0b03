"""Outcomes against their formulas, written out image by image."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whyprune.effects.outcomes import (
    OUTCOMES,
    ClassLogit,
    CrossEntropy,
    LogitShift,
    Margin,
    PredictionChange,
    as_outcome,
)
from whyprune.errors import InputError

GENERATOR = torch.Generator().manual_seed(0)
DENSE = torch.randn(12, 4, generator=GENERATOR) * 3
LOGITS = DENSE + torch.randn(12, 4, generator=GENERATOR)
LABELS = torch.arange(12) % 4


def test_logit_shift_is_the_squared_distance_of_centred_logits_over_their_variance():
    z, d = LOGITS.double().numpy(), DENSE.double().numpy()
    z, d = z - z.mean(axis=1, keepdims=True), d - d.mean(axis=1, keepdims=True)
    scale = np.mean([np.sum((row - d.mean(axis=0)) ** 2) for row in d])
    expected = [np.sum((a - b) ** 2) / scale for a, b in zip(z, d, strict=True)]
    np.testing.assert_allclose(LogitShift().fit(DENSE)(LOGITS, DENSE, None), expected, rtol=1e-5)


def test_a_logit_shift_of_one_is_the_distance_of_every_image_from_the_mean():
    outcome = LogitShift().fit(DENSE)
    mean = DENSE.mean(dim=0).expand_as(DENSE)
    assert float(outcome(mean, DENSE, None).mean()) == pytest.approx(1, rel=1e-5)
    assert float(outcome(DENSE, DENSE, None).abs().max()) == 0


@settings(max_examples=30, deadline=None)
@given(shift=st.floats(-50, 50), scale=st.floats(0.1, 20), seed=st.integers(0, 999))
def test_logit_shift_sees_no_common_shift_and_no_common_scale(shift, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    logits = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    plain = LogitShift().fit(dense)(logits, dense, None)
    shifts = torch.randn(8, 1, generator=generator, dtype=torch.float64) * shift
    moved = LogitShift().fit(dense + shift)(logits + shifts, dense + shift, None)
    scaled = LogitShift().fit(dense * scale)(logits * scale, dense * scale, None)
    np.testing.assert_allclose(moved, plain, rtol=1e-9)
    np.testing.assert_allclose(scaled, plain, rtol=1e-9)


def test_cross_entropy_is_minus_the_log_probability_of_the_label():
    expected = [
        -math.log(math.exp(row[k]) / sum(map(math.exp, row)))
        for row, k in zip(LOGITS.tolist(), LABELS.tolist(), strict=True)
    ]
    np.testing.assert_allclose(CrossEntropy()(LOGITS, DENSE, LABELS), expected, rtol=1e-5)


def test_margin_is_how_far_the_best_other_class_is_ahead():
    expected = [
        max(v for j, v in enumerate(row) if j != k) - row[k]
        for row, k in zip(LOGITS.tolist(), LABELS.tolist(), strict=True)
    ]
    np.testing.assert_allclose(Margin()(LOGITS, DENSE, LABELS), expected, rtol=1e-5)
    assert torch.equal(Margin()(LOGITS, DENSE, LABELS) < 0, LOGITS.argmax(dim=1) == LABELS)


def test_prediction_change_counts_other_predictions():
    logits = torch.tensor([[1.0, 2.0], [2.0, 1.0], [5.0, 0.0]])
    dense = torch.tensor([[0.0, 9.0], [0.0, 9.0], [1.0, 0.0]])
    assert PredictionChange()(logits, dense, None).tolist() == [0, 1, 0]


def test_class_logit_is_how_far_its_centred_logit_falls():
    fall = DENSE[:, 2] - DENSE.mean(dim=1) - (LOGITS[:, 2] - LOGITS.mean(dim=1))
    outcome = as_outcome(ClassLogit(2)).fit(DENSE)
    torch.testing.assert_close(outcome(LOGITS, DENSE, None), fall)
    assert outcome.name == "class-logit-2"
    for missing in (-1, 4):
        with pytest.raises(InputError, match=f"class {missing} does not exist"):
            ClassLogit(missing).fit(DENSE)


@pytest.mark.parametrize("name", ["cross-entropy", "margin"])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "needs labels"),
        (LABELS + 1, "from 1 to 4"),
        (LABELS - 1, "from -1 to 2"),
        (LABELS.float(), "integer"),
        (LABELS[:, None], "one integer label per image"),
    ],
)
def test_labels_that_do_not_fit_are_refused(name, labels, message):
    with pytest.raises(InputError, match=message):
        as_outcome(name)(LOGITS, DENSE, labels)


def test_names_lead_to_outcomes_that_bear_them():
    assert as_outcome(None).name == "logit-shift"
    for name in OUTCOMES:
        outcome = as_outcome(name)
        assert outcome.name == name
        assert as_outcome(outcome) is outcome


@pytest.mark.parametrize("unusable", ["accuracy", 3, LogitShift, ["margin"]])
def test_what_is_no_outcome_is_refused(unusable):
    with pytest.raises(InputError, match="outcome"):
        as_outcome(unusable)


def test_a_function_is_an_outcome_that_gives_one_number_per_image():
    def largest_drop(logits, dense, labels):
        return (dense - logits).amax(dim=1)

    outcome = as_outcome(largest_drop).fit(DENSE)
    assert outcome.name == "largest_drop"
    assert torch.equal(outcome(LOGITS, DENSE, None), (DENSE - LOGITS).amax(dim=1))
    for wrong in (lambda z, d, y: z, lambda z, d, y: z.sum(), lambda z, d, y: 1.0):
        with pytest.raises(InputError, match="one number per image"):
            as_outcome(wrong)(LOGITS, DENSE, None)


def test_logit_shift_needs_logits_that_vary():
    for dense, message in ((torch.ones(5, 3), "same logits"), (torch.randn(1, 3), "at least 2")):
        with pytest.raises(InputError, match=message):
            LogitShift().fit(dense)
    with pytest.raises(InputError, match="fit"):
        LogitShift()(LOGITS, DENSE, None)
