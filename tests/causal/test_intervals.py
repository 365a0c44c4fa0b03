"""Intervals of skewed means: they cover better than t-intervals do, and are the same where nothing is skewed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from whyprune.effects.intervals import by_cluster, moments, skew_corrected


@given(st.integers(0, 1000), st.integers(3, 200))
@settings(max_examples=30, deadline=None)
def test_without_skewness_it_is_the_t_interval(seed, count):
    values = np.random.default_rng(seed).normal(size=(count, 2))
    values = np.concatenate([values, -values])  # symmetric about 0
    low, high = skew_corrected(*moments(values))
    expected = stats.t.interval(0.95, len(values) - 1, loc=values.mean(axis=0), scale=stats.sem(values))
    np.testing.assert_allclose((low, high), expected, rtol=1e-6)


@given(st.integers(0, 1000), st.floats(0.1, 3.0))
@settings(max_examples=30, deadline=None)
def test_the_mean_is_inside_and_mirrored_values_have_the_mirrored_interval(seed, shape):
    values = np.random.default_rng(seed).gamma(shape, size=(50, 3))
    low, high = skew_corrected(*moments(values))
    assert (low < values.mean(axis=0)).all()
    assert (values.mean(axis=0) < high).all()
    mirrored = skew_corrected(*moments(-values))
    np.testing.assert_allclose((-mirrored[1], -mirrored[0]), (low, high), rtol=1e-9)


@pytest.mark.parametrize("spread", [1.0, 1.3])
def test_skewed_values_are_covered_better_than_by_t(spread):
    """Log-normal values, as skewed as effects are."""
    truth, hits = np.exp(spread**2 / 2), np.zeros(2)
    values = np.exp(spread * np.random.default_rng(0).normal(size=(128, 4000)))
    mean, error, skewness, samples = moments(values)
    low, high = skew_corrected(mean, error, skewness, samples)
    hits = np.mean([(low <= truth) & (truth <= high), np.abs(mean - truth) <= stats.t.ppf(0.975, 127) * error], axis=1)
    assert hits[0] > hits[1] + 0.01
    assert hits[0] <= 0.97


def test_missing_values_count_as_never_seen():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 3))
    holed = values.copy()
    holed[12:, 1] = np.nan
    found, alone = moments(holed), moments(values[:12])
    for a, b in zip(found, alone, strict=True):
        assert a[1] == pytest.approx(b[1])


def test_clusters_are_averaged_first():
    values = np.array([[1.0], [3.0], [10.0], [np.nan]])
    np.testing.assert_array_equal(by_cluster(values, np.array([4, 4, 7, 9])), [[2.0], [10.0], [np.nan]])
