"""Sentences say what the record says."""

import pytest
from made_up_run import bare_result, epochs, full_result, unit_rows

from whyprune.report import words
from whyprune.results import Certificate, JointEffect, Verification

ROWS = unit_rows()


def joint(predicted):
    return JointEffect(outcome="Y", predicted=predicted, measured=2.0, interval=(1.0, 3.0), images=8)


def verification(difference, stress=None):
    return Verification(max_abs_difference=difference, tolerance=1e-4, inputs=64, stress_max_abs_difference=stress)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "resnet56 pruned to 50.0% of its MACs: 93.39% → 91.60% top-1 without a gradient step"),
        (
            {"asked": {"model": "m", "budget": "params=0.5"}, "recovery": epochs(1)},
            "m pruned to 50.6% of its parameters: 93.39% → 91.60% top-1 after 1 epoch of fine-tuning",
        ),
        (
            {"asked": {"budget": {"bytes": 0.5}}, "recovery": epochs(3)},
            "The network pruned to 50.6% of its bytes: 93.39% → 91.60% top-1 after 3 epochs of fine-tuning",
        ),
    ],
)
def test_the_headline_names_the_model_the_budget_and_the_outcome(changes, sentence):
    assert words.headline(full_result(ROWS, **changes)) == sentence


def test_the_headline_without_accuracy_says_so():
    assert words.headline(bare_result()).endswith("without a gradient step; accuracy not measured")


@pytest.mark.parametrize(
    ("predicted", "begins"),
    [
        (1.0, "They agree"),
        (2.5, "They agree"),
        (0.99, "They disagree: the prediction lies below"),
        (3.01, "They disagree: the prediction lies above"),
        (None, "No joint effect was predicted"),
    ],
)
def test_agreement_is_decided_by_the_interval(predicted, begins):
    assert words.agreement(joint(predicted)).startswith(begins)


@pytest.mark.parametrize(
    ("verify", "proven"),
    [
        (verification(1e-4), True),
        (verification(1.1e-4), False),
        (verification(float("nan")), False),
        (verification(0.0, stress=1e-5), True),
        (verification(0.0, stress=1.0), False),
    ],
)
def test_a_proof_needs_every_difference_within_the_tolerance(verify, proven):
    assert words.proven(verify) is proven
    assert ("are not the same function" in words.proof(verify)) is not proven


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (words.number(3.84e-6), "3.84×10⁻⁶"),
        (words.number(-0.01234), "−0.0123"),
        (words.number(None), "not measured"),
        (words.short(125485706), "125 M"),
        (words.short(999_999_999), "1000 M"),
        (words.short(12), "12"),
        (words.duration(2.314), "2.31 s"),
        (words.duration(119.6), "2 min 0 s"),
        (words.duration(7260), "2 h 1 min"),
        (words.plain({"a": [1, None], "b": {}}), "a = 1, not recorded, b = none"),
        (words.quoted('a"b\\c'), '"a\\"b\\\\c"'),
    ],
)
def test_numbers_are_shown_with_their_unit(shown, text):
    assert shown == text


def test_a_certificate_says_what_each_bound_is_on():
    drop = Certificate(
        of="accuracy drop",
        bound_percent=1.5,
        fresh_bound_percent=2.0,
        fresh_images=5000,
        measured_percent=1.0,
        confidence=0.95,
        images=4000,
    )
    said = words.certified(drop)
    assert said.startswith(
        "With 95% confidence, accuracy drops by at most 1.50 points on images drawn like these and by"
    )
    assert "by at most 2.00 points on a fresh sample of 5,000 of them; measured: 1.00, on 4,000 images" in said
    older = drop.model_copy(update={"of": "changed predictions", "fresh_bound_percent": None, "fresh_images": None})
    assert "predictions change for at most 1.50% of images drawn like these; measured: 1.00%" in words.certified(older)
