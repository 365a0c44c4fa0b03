"""Taylor as control variate: unbiased whatever it says, and sharper than as many exact effects where it is right."""

from functools import cache

import numpy as np
import pytest
import torch

from whyprune.causal.adaptive import screen
from whyprune.causal.adaptive.taylor import LEAD
from whyprune.causal.exact import exact_effects
from whyprune.effects.outcomes import LogitShift
from whyprune.scoring.estimate import estimate
from whyprune.testing import planted

CASE = planted.case(1)
DRAWS = 40


class Known(LogitShift):
    """The outcome with the scale of all images, whichever it is fitted to."""

    def fit(self, dense):
        return self


@cache
def outcome():
    with torch.no_grad():
        return Known(LogitShift().fit(CASE.network.model(CASE.images)).scale)


@cache
def truth():
    """Effects of all units on every image."""
    return exact_effects(CASE.network, [CASE.images], outcome=outcome(), per_image=True).per_image.astype(float)


def taylor(seed, **options):
    return estimate(CASE.network, [CASE.images], method="causal-taylor", outcome=outcome(), seed=seed, **options)


def subsampled(seed, count):
    """Plain means of as many exact effects."""
    chosen = np.random.default_rng(1000 + seed).permutation(truth().shape[1])[:count]
    return truth()[:, chosen].mean(axis=1)


def test_it_is_unbiased_and_sharper_than_as_many_exact_effects():
    count = truth().shape[1] // int(LEAD)
    runs = [taylor(seed) for seed in range(DRAWS)]
    assert {run.samples for run in runs} == {count}
    means = np.array([run.mean for run in runs])
    plain = np.array([subsampled(seed, count) for seed in range(DRAWS)])
    exact = truth().mean(axis=1)
    bias = (means.mean(axis=0) - exact) / (means.std(axis=0, ddof=1) / np.sqrt(DRAWS) + 1e-6)
    assert np.abs(bias).max() < 4.5
    moving = plain.std(axis=0) > 1e-3
    assert moving.sum() > 5
    assert np.median(means.var(axis=0)[moving] / plain.var(axis=0)[moving]) < 0.5
    assert np.mean([run.diagnostics["explained"] for run in runs]) > 0.5
    assert np.median(runs[0].standard_error[moving] / plain.std(axis=0)[moving]) < 0.9


@pytest.mark.parametrize("said", ["noise", "the opposite"])
def test_what_taylor_says_may_be_wrong(monkeypatch, said):
    """It then costs sharpness, and never truth."""
    real = screen.Laboratory._surrogate

    def wrong(self, found):
        guesses = real(self, found)
        noise = np.random.default_rng(self._seed).gamma(0.5, size=guesses.shape)
        return noise * guesses.mean() if said == "noise" else 5 * guesses.max() - 3 * guesses

    monkeypatch.setattr(screen.Laboratory, "_surrogate", wrong)
    runs = [taylor(seed) for seed in range(DRAWS // 2)]
    means = np.array([run.mean for run in runs])
    exact = truth().mean(axis=1)
    bias = (means.mean(axis=0) - exact) / (means.std(axis=0, ddof=1) / np.sqrt(len(runs)) + 1e-6)
    assert np.abs(bias).max() < 4.5
    low, high = (np.array([run.interval[k] for run in runs]) for k in (0, 1))
    assert np.mean((low <= exact) & (exact <= high)) > 0.9


def test_all_units_are_measured_on_the_same_images_within_the_passes():
    for passes in (200.0, 600.0):
        found = estimate(CASE.network, [CASE.images], method="causal-taylor", forward_passes=passes)
        assert found.forward_passes <= passes
        assert found.samples >= 2
        assert 0 <= found.diagnostics["explained"] <= 1
    unbounded = estimate(CASE.network, [CASE.images], method="causal-taylor")
    assert unbounded.samples == len(CASE.images) // int(LEAD)


def test_under_another_intervention_the_guess_is_of_that_one():
    for value in ("mean", "carried"):
        found = estimate(CASE.network, [CASE.images], method="causal-taylor", intervention=value)
        exact = estimate(CASE.network, [CASE.images], method="exact", intervention=value)
        low, high = found.interval
        assert np.mean((low <= exact.mean + 1e-6) & (exact.mean - 1e-6 <= high)) > 0.85
        assert found.intervention == value
