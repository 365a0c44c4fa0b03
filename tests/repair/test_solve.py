"""The closed form against plain least squares on the same problem written out as rows."""

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whyprune.repair.solve import refit

SEEDS, SIZES = st.integers(0, 9999), st.integers(1, 6)


def problem(seed, features, outputs, rows=40):
    generator = torch.Generator().manual_seed(seed)
    x, target, offset = (
        torch.randn(rows, n, generator=generator, dtype=torch.float64) + 0.5 for n in (features, outputs, outputs)
    )
    start = torch.randn(outputs, features, generator=generator, dtype=torch.float64)
    return x, target, offset, start


@settings(max_examples=50, deadline=None)
@given(
    seed=SEEDS,
    features=SIZES,
    outputs=SIZES,
    ridge=st.sampled_from([0.0, 1e-3, 1.0]),
    intercept=st.booleans(),
    joins=st.booleans(),
)
def test_weights_are_those_of_least_squares_with_rows_that_pull_towards_the_start(
    seed, features, outputs, ridge, intercept, joins
):
    x, target, offset, start = problem(seed, features, outputs)
    weights, bias = refit(x, target, offset if joins else None, start, ridge=ridge, intercept=intercept)
    aim = (target - offset if joins else target).numpy()
    centred = x - x.mean(dim=0) if intercept else x
    strength = ridge * float(centred.square().sum(dim=0).mean())
    ones = np.full((len(x), 1), float(intercept))
    rows = np.r_[np.c_[x.numpy(), ones], np.c_[strength**0.5 * np.eye(features), np.zeros((features, 1))]]
    aims = np.r_[aim, strength**0.5 * start.T.numpy()]
    expected = np.linalg.lstsq(rows, aims, rcond=None)[0]
    np.testing.assert_allclose(weights.T.numpy(), expected[:-1], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(bias.numpy(), expected[-1], rtol=1e-6, atol=1e-8)


@settings(max_examples=50, deadline=None)
@given(seed=SEEDS, features=SIZES, outputs=SIZES, joins=st.booleans())
def test_passes_for_the_relu_never_lose(seed, features, outputs, joins):
    """Where the target is silent, only what is above zero counts."""
    ridge = 1e-3
    x, target, offset, start = problem(seed, features, outputs)
    target = target - 0.5

    def loss(passes):
        weights, bias = refit(x, target, offset if joins else None, start, ridge=ridge, relu_passes=passes)
        value = x @ weights.T + bias + (offset if joins else 0)
        error = torch.where(target > 0, value - target, value.clamp_min(0)).square().sum()
        strength = ridge * (x - x.mean(dim=0)).square().sum(dim=0).mean()
        return float(error + strength * (weights - start).square().sum())

    losses = [loss(passes) for passes in range(6)]
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in pairwise(losses))


def test_passes_reach_a_function_behind_a_relu_that_plain_least_squares_cannot():
    """The target's negative part is noise: behind the ReLU an exact solution exists, and passes approach it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 3, generator=generator)
    clean = x @ torch.tensor([[1.0], [2.0], [-1.0]])
    noise = torch.randn(400, 1, generator=generator).abs() * 3
    target = torch.where(clean > 0, clean, clean - noise)

    def error(passes):
        weights, bias = refit(x, target, None, torch.zeros(1, 3), relu_passes=passes)
        return float((torch.relu(x @ weights.T + bias) - torch.relu(target)).square().mean())

    assert error(50) < error(5) < error(0)
    assert error(50) < 0.01 * error(0)


def test_what_the_images_do_not_determine_stays_as_it_was():
    x = torch.zeros(20, 3)
    x[:, 0] = torch.arange(20.0)
    start = torch.tensor([[1.0, 5.0, -7.0]])
    weights, _ = refit(x, 2 * x[:, :1], None, start)
    torch.testing.assert_close(weights, torch.tensor([[2.0, 5.0, -7.0]]), atol=2e-3, rtol=0)
