"""Random masks recover context effects: against enumeration of all sets, with intervals that hold what they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causal.tables import planted_table, tiny_table
from whyprune.causal.masks.random_masks import MaskDesign, fold_over, mask_effects, masked_runs, random_masks, regress
from whyprune.errors import InputError
from whyprune.scoring.contract import Question
from whyprune.testing import planted

DRAWS = 200


def estimated(table, design):
    return regress(masked_runs(table, design), design.regression)


@given(st.integers(0, 1000), st.floats(0.01, 0.5))
@settings(max_examples=30, deadline=None)
def test_a_pair_has_no_unit_in_common_and_each_mask_has_the_rate(seed, rate):
    masks = fold_over(np.random.default_rng(seed), 200, 30, rate)
    first, second = masks[::2], masks[1::2]
    assert not (first & second).any()
    for half in (first, second):
        assert abs(half.mean() - rate) < 6 * np.sqrt(rate * (1 - rate) / half.size)


def test_at_half_the_two_masks_of_a_pair_are_complements():
    masks = fold_over(np.random.default_rng(0), 50, 12, 0.5)
    assert (masks[::2] ^ masks[1::2]).all()


@pytest.mark.parametrize(
    ("rate", "rows", "images"), [(0.05, 1280, 640), (0.05, 1280, 64), (0.2, 400, 64), (0.5, 200, 40)]
)
def test_intervals_cover_the_context_effect_as_often_as_they_say(rate, rows, images):
    """Each draw has new images, repeated or not, and new masks; the truth is enumerated."""
    table = tiny_table()
    truth = table.context(rate)
    hits, errors = [], []
    for seed in range(DRAWS):
        fit = estimated(table.drawn(images, seed), MaskDesign(rate, rows, seed=seed))
        hits.append(np.abs(fit.mean - truth) <= fit.half_width)
        errors.append(fit.mean - truth)
    assert 0.92 <= np.mean(hits) <= 0.98
    assert np.mean(hits, axis=0).min() >= 0.87
    bias = np.mean(errors, axis=0) / (np.std(errors, axis=0) / np.sqrt(DRAWS))
    assert np.abs(bias).max() < 4


def test_what_is_estimated_is_not_the_single_effect():
    """At a high rate the two are far apart, and the intervals hold one of them."""
    table = tiny_table()
    context, single = table.context(0.4), table.context(0.0)
    unit = int(np.argmax(np.abs(context - single)))
    hits = np.zeros(2)
    for seed in range(100):
        fit = estimated(table.drawn(64, seed), MaskDesign(0.4, 400, seed=seed))
        inside = np.abs(fit.mean[unit] - np.array([context[unit], single[unit]])) <= fit.half_width[unit]
        hits += inside / 100
    assert hits[0] > 0.88
    assert hits[1] < 0.2


def test_the_network_itself_gives_what_the_enumeration_gives():
    case = planted.case(1, 48)
    names = [case.unit(k) for k in range(planted.UNITS)]
    found = mask_effects(case.network, [case.batch], MaskDesign(0.02, 6000), Question(units=tuple(names)))
    assert found.estimand == "context"
    assert found.rate == 0.02
    truth = planted_table().context(0.02)  # in which the second layer stays
    big = truth > 0.1
    np.testing.assert_allclose(found.mean[big], truth[big], rtol=0.5)
    low, high = found.interval
    for silent in (planted.DEAD, planted.BYSTANDER):
        assert low[silent] <= 1e-6
        assert high[silent] >= -1e-6
    pair = [planted.PLUS, planted.MINUS, planted.COPY, planted.OTHER_COPY]
    assert (low[pair] > 0).all()


def test_other_regressions_shrink_and_claim_no_interval():
    table = tiny_table()
    truth = table.context(0.2)
    for regression in ("ridge", "lasso"):
        fit = estimated(table, MaskDesign(0.2, 2000, regression))
        assert fit.approximate
        assert np.isnan(fit.half_width).all()
        assert np.corrcoef(fit.mean, truth)[0, 1] > 0.95


def test_too_few_masks_for_least_squares_claim_nothing():
    assert estimated(tiny_table(), MaskDesign(0.3, 16)).approximate
    assert estimated(tiny_table(), MaskDesign(0.01, 60)).approximate
    assert not estimated(tiny_table(), MaskDesign(0.3, 80)).approximate


@pytest.mark.parametrize("forward_passes", [100.0, 1000.0])
def test_the_budget_is_kept(forward_passes):
    case = planted.case(1)
    assert (
        random_masks(case.network, [case.batch], Question(forward_passes=forward_passes)).forward_passes
        <= forward_passes
    )


def test_unusable_designs_are_refused():
    for wrong in ({"rate": 0.0}, {"rate": 0.6}, {"rows": 2}, {"regression": "forest"}):
        with pytest.raises(InputError):
            MaskDesign(**wrong)
    case = planted.case(1)
    with pytest.raises(InputError, match="forward passes do not pay"):
        random_masks(case.network, [case.batch], Question(forward_passes=5.0))
    with pytest.raises(InputError, match="at least 2 are needed"):
        mask_effects(case.network, [case.images[:1]], MaskDesign(), Question(outcome="prediction-change"))
