"""Guesses make estimates sharper, never wrong: unbiased whatever they are, with intervals that hold."""

import numpy as np
import pytest

from whyprune.causal.adaptive.control_variate import estimates

UNITS, GROUPS = 20, np.repeat([0, 1], 10)
REPEATS = 200


def population(seed, shared):
    """Skewed effects and guesses (units, images), guesses off by a factor; `shared` is how much they have in common."""
    rng = np.random.default_rng(seed)
    common, own = rng.gamma(0.5, size=(2, UNITS, 3000))
    size = np.exp(rng.normal(size=(UNITS, 1)))
    return size * (shared * common + (1 - shared) * own), size * 1.7 * common


def drawn(effects, guesses, n, many, seed):
    chosen = np.random.default_rng(seed).integers(0, effects.shape[1], many)
    return estimates(effects[:, chosen[:n]], guesses[:, chosen], GROUPS)


@pytest.mark.parametrize("shared", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("n", "many"), [(64, 64), (64, 256)])
def test_intervals_cover_whatever_the_guesses_are(shared, n, many):
    effects, guesses = population(1, shared)
    truth = effects.mean(axis=1)
    hits, errors = [], []
    for seed in range(REPEATS):
        found = drawn(effects, guesses, n, many, seed)
        low, high = found.interval()
        hits.append((low <= truth) & (truth <= high))
        errors.append(found.mean - truth)
    assert 0.93 <= np.mean(hits) <= 0.97
    assert np.mean(hits, axis=0).min() >= 0.88
    bias = np.mean(errors, axis=0) / (np.std(errors, axis=0) / np.sqrt(REPEATS))
    assert np.abs(bias).max() < 4


def test_good_guesses_are_worth_many_exact_effects_and_bad_ones_cost_next_to_nothing():
    spread = {}
    for shared in (0.0, 0.9):
        effects, guesses = population(2, shared)
        runs = [drawn(effects, guesses, 64, 640, seed) for seed in range(REPEATS)]
        plain = effects.var(axis=1) / 64
        spread[shared] = np.median(np.var([r.mean for r in runs], axis=0) / plain)
    assert spread[0.9] < 0.25
    assert spread[0.0] < 1.1


def test_without_guesses_it_is_the_mean():
    effects, _ = population(3, 0.5)
    found = estimates(effects[:, :50], np.zeros((UNITS, 80)), GROUPS)
    np.testing.assert_allclose(found.mean, effects[:, :50].mean(axis=1))
    np.testing.assert_allclose(found.error, effects[:, :50].std(axis=1, ddof=1) / np.sqrt(50))


def test_perfect_guesses_leave_the_error_of_the_prescreen_alone():
    effects, _ = population(4, 0.5)
    found = estimates(effects[:, :50], effects[:, :800] * 3.0, GROUPS)
    np.testing.assert_allclose(found.mean, effects[:, :800].mean(axis=1))
    np.testing.assert_allclose(found.error, effects[:, :800].std(axis=1) / np.sqrt(800), rtol=0.15)


def test_missing_effects_are_not_counted():
    effects, guesses = population(5, 0.5)
    holed = effects[:, :100].copy()
    holed[3, 60:] = np.nan
    found = estimates(holed, guesses[:, :300], GROUPS)
    assert found.samples[3] == 60
    alone = estimates(effects[3:4, :60], guesses[3:4, :300], np.array([0]))
    assert found.mean[3] == pytest.approx(alone.mean[0], rel=0.05)  # but for the group's constant
    assert np.isfinite(found.mean).all()


def test_a_unit_that_never_moves_has_no_effect_and_no_error():
    effects, guesses = population(6, 0.5)
    effects[2] = guesses[2] = 0
    found = estimates(effects[:, :50], guesses[:, :80], GROUPS)
    assert (found.mean[2], found.error[2]) == (0, 0)
    assert all(bound[2] == 0 for bound in found.interval())
