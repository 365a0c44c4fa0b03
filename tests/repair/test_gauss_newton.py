"""Steps against least squares solved directly, and what they must not depend on."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whyprune.repair.gauss_newton import gauss_newton_step


def problem(seed, rows, inputs, outputs):
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(rows, n, generator=generator, dtype=torch.float64) for n in (inputs, outputs))
    start = (
        torch.randn(outputs, inputs, generator=generator, dtype=torch.float64),
        torch.randn(outputs, generator=generator, dtype=torch.float64),
    )
    return x, y, start


def affine(x):
    return lambda weight, bias: x @ weight.T + bias


def step(functions, start, missing, counts, iterations=60, damping=1e-10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return gauss_newton_step(
        functions, start, missing, counts, iterations=iterations, damping=damping, generator=generator
    )


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(12, 30),
    inputs=st.integers(1, 5),
    outputs=st.integers(1, 4),
    cuts=st.integers(1, 3),
)
@settings(max_examples=30, deadline=None)
def test_of_a_linear_function_one_step_is_the_least_squares_solution_however_it_is_batched(
    seed, rows, inputs, outputs, cuts
):
    x, y, start = problem(seed, rows, inputs, outputs)
    parts = list(zip(x.chunk(cuts), y.chunk(cuts), strict=True))
    functions = [affine(a) for a, _ in parts]
    missing = [b - f(*start) for f, (_, b) in zip(functions, parts, strict=True)]
    weight, bias = step(functions, start, missing, [torch.ones_like(m) for m in missing])
    design = torch.cat([x, torch.ones(rows, 1, dtype=x.dtype)], dim=1)
    best = torch.linalg.lstsq(design, y).solution.T
    torch.testing.assert_close(start[0] + weight, best[:, :-1], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(start[1] + bias, best[:, -1], atol=1e-6, rtol=1e-6)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_what_does_not_count_changes_nothing(seed):
    x, y, start = problem(seed, 20, 3, 2)
    function = affine(x)
    counts = (torch.rand(20, 2, generator=torch.Generator().manual_seed(seed)) > 0.3).to(x.dtype)
    missing = y - function(*start)
    one = step([function], start, [missing], [counts])
    two = step([function], start, [missing + 100 * (1 - counts)], [counts])
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b)


def test_more_damping_gives_shorter_steps_that_still_help():
    x, y, start = problem(3, 30, 4, 2)
    function = affine(x)
    missing = y - function(*start)
    before = float(missing.square().sum())
    lengths = []
    for damping in (1e-6, 1.0, 100.0):
        found = step([function], start, [missing], [torch.ones_like(missing)], damping=damping)
        lengths.append(float(sum(f.square().sum() for f in found)))
        after = float((y - function(*(s + f for s, f in zip(start, found, strict=True)))).square().sum())
        assert after < before
    assert lengths == sorted(lengths, reverse=True)


def test_nothing_missing_gives_no_step():
    x, _, start = problem(5, 10, 3, 2)
    zero = torch.zeros(10, 2, dtype=x.dtype)
    for found in step([affine(x)], start, [zero], [torch.ones_like(zero)]):
        assert not found.any()
