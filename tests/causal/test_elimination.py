"""Backward elimination against trying out every removal."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whyprune.causal.response.elimination import Reading, eliminate, eliminate_jointly, joint_elimination

RIDGE = 0.01


def problem(seed, channels, block, stays, outputs=3, rows=60):
    """Features of `channels` blocks and of `stays` columns that always stay, shuffled; targets depend on all."""
    rng = np.random.default_rng(seed)
    width = channels * block + stays
    x = rng.normal(size=(rows, width)) @ (np.eye(width) + 0.4 * rng.normal(size=(width, width))) + rng.normal(
        size=width
    )
    target = x @ rng.normal(size=(width, outputs)) + rng.normal(size=(rows, outputs))
    places = rng.permutation(width)[: channels * block].reshape(channels, block)
    return x, target, [torch.from_numpy(np.sort(p)) for p in places]


def ridge_fit(x, target, support):
    """Weights on `support`, bias and penalised loss; the ridge is relative to the mean energy of all features."""
    mean, centre = x.mean(axis=0), target.mean(axis=0)
    strength = RIDGE * ((x - mean) ** 2).sum(axis=0).mean()
    own = (x - mean)[:, support]
    weights = np.linalg.solve(own.T @ own + strength * np.eye(len(support)), own.T @ (target - centre))
    loss = ((own @ weights - (target - centre)) ** 2).sum() + strength * (weights**2).sum()
    return weights, centre - mean[support] @ weights, loss


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), channels=st.integers(2, 6), block=st.integers(1, 3), stays=st.integers(0, 3))
def test_each_step_is_the_best_single_removal_and_the_weights_are_refitted(seed, channels, block, stays):
    x, target, places = problem(seed, channels, block, stays)
    found = eliminate(torch.from_numpy(x), torch.from_numpy(target), places, range(1, channels + 1), ridge=RIDGE)
    alive = list(range(channels))
    always = np.setdiff1d(np.arange(x.shape[1]), torch.cat(places).numpy())

    def support(kept):
        return np.sort(np.concatenate([always, *(places[c].numpy() for c in kept)])).astype(int)

    for gone in [None, *found.order]:
        if gone is not None:
            losses = {c: ridge_fit(x, target, support([a for a in alive if a != c]))[2] for c in alive}
            assert losses[gone] <= min(losses.values()) * (1 + 1e-6)
            alive.remove(gone)
        kept, weights, bias = found.weights[len(alive)]
        expected, intercept, _ = ridge_fit(x, target, support(alive))
        assert kept == alive
        np.testing.assert_allclose(weights.numpy(), expected.T, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
        np.testing.assert_allclose(bias.numpy(), intercept, rtol=1e-3, atol=1e-3 * (1 + np.abs(intercept).max()))


def test_weights_are_given_for_the_kept_counts_asked_for():
    x, target, places = problem(0, 6, 1, 0)
    found = eliminate(torch.from_numpy(x), torch.from_numpy(target), places, [5, 2])
    assert set(found.weights) == {5, 2}
    assert len(found.order) == 4


def reading(x, weights, blocks):
    covariance = np.cov(x.T, bias=True) + 1e-9 * np.eye(x.shape[1])
    return Reading(torch.linalg.inv(torch.from_numpy(covariance)), torch.from_numpy(weights), blocks, scale=1.0)


def lost(x, weights, gone):
    """The variance of the output that is lost when the other channels predict the ones that are gone."""
    stay = np.setdiff1d(np.arange(x.shape[1]), gone)
    centred = x - x.mean(axis=0)
    predicted = centred[:, stay] @ np.linalg.lstsq(centred[:, stay], centred[:, gone], rcond=None)[0]
    return (((centred[:, gone] - predicted) @ weights[gone]) ** 2).mean(axis=0).sum()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), units=st.integers(2, 6), readers=st.integers(1, 3), block=st.integers(1, 2))
def test_units_of_many_readers_go_by_what_all_readers_lose_in_all(seed, units, readers, block):
    rng = np.random.default_rng(seed)
    width = units * block
    blocks = torch.from_numpy(rng.permutation(width).reshape(units, block))
    data = [rng.normal(size=(200, width)) @ rng.normal(size=(width, width)) for _ in range(readers)]
    weights = [rng.normal(size=(width, 4)) for _ in range(readers)]
    order = eliminate_jointly([reading(x, w, blocks) for x, w in zip(data, weights, strict=True)])
    assert sorted(order) == list(range(units))
    for step in range(units - 1):
        total = {
            unit: sum(
                lost(x, w, blocks[[*order[:step], unit]].flatten().numpy()) for x, w in zip(data, weights, strict=True)
            )
            for unit in order[step:]
        }
        assert total[order[step]] <= min(total.values()) * (1 + 1e-4)


def test_of_two_copies_only_one_is_free():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 4))
    x[:, 1] = x[:, 0]
    weights = np.diag([10.0, 10.0, 1.0, 2.0])
    order = eliminate_jointly([reading(x, weights, torch.arange(4)[:, None])])
    assert order[0] in (0, 1)
    assert order[-1] in (0, 1)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), channels=st.integers(2, 5), block=st.integers(1, 2), stays=st.integers(0, 2))
def test_a_loss_is_what_the_penalised_error_rises_by_as_a_share_of_the_target(seed, channels, block, stays):
    x, target, places = problem(seed, channels, block, stays)
    found = eliminate(torch.from_numpy(x), torch.from_numpy(target), places, [0], ridge=RIDGE)
    always = np.setdiff1d(np.arange(x.shape[1]), torch.cat(places).numpy())
    alive, energy = list(range(channels)), ((target - target.mean(axis=0)) ** 2).sum()

    def error():
        support = np.sort(np.concatenate([always, *(places[c].numpy() for c in alive)])).astype(int)
        return ridge_fit(x, target, support)[2] if len(support) else energy

    assert len(found.losses) == len(found.order) == channels
    for gone, loss in zip(found.order, found.losses, strict=True):
        before = error()
        alive.remove(gone)
        assert loss == pytest.approx((error() - before) / energy, rel=1e-5, abs=1e-9)


def test_a_joint_loss_is_what_all_readers_lose():
    rng = np.random.default_rng(3)
    data = [rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5)) for _ in range(2)]
    weights, blocks = [rng.normal(size=(5, 4)) for _ in range(2)], torch.arange(5)[:, None]
    found = joint_elimination([reading(x, w, blocks) for x, w in zip(data, weights, strict=True)])
    gone, before = [], 0.0
    for unit, loss in zip(found.order[:-1], found.losses, strict=False):
        gone.append(unit)
        after = sum(lost(x, w, gone) for x, w in zip(data, weights, strict=True))
        assert loss == pytest.approx(after - before, rel=1e-3)
        before = after
