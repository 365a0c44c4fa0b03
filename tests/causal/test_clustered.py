"""Cluster-robust least squares is what its definition says, and blind to copies of an observation."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from whyprune.causal.masks.clustered import least_squares


def drawn(seed, rows=40, columns=3):
    rng = np.random.default_rng(seed)
    design = rng.normal(size=(rows, columns))
    return design, design @ rng.normal(size=columns) + rng.normal(size=rows) * np.exp(design[:, 0])


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_with_one_row_to_a_cluster_it_is_hc2(seed):
    design, values = drawn(seed)
    found, error = least_squares(design, values, np.arange(len(values)))
    whole = np.c_[np.ones(len(design)), design]
    expected = np.linalg.lstsq(whole, values, rcond=None)[0]
    inverse = np.linalg.inv(whole.T @ whole)
    leverage = np.einsum("ij,jk,ik->i", whole, inverse, whole)
    middle = (whole.T * ((values - whole @ expected) ** 2 / (1 - leverage))) @ whole
    np.testing.assert_allclose(found, expected[1:], atol=1e-10)
    np.testing.assert_allclose(error, np.sqrt(np.diag(inverse @ middle @ inverse))[1:], rtol=1e-8)


@given(st.integers(0, 1000), st.integers(2, 5))
@settings(max_examples=20, deadline=None)
def test_copies_of_an_observation_in_its_cluster_change_nothing(seed, copies):
    design, values = drawn(seed)
    clusters = np.arange(len(values))
    once = least_squares(design, values, clusters)
    often = least_squares(np.repeat(design, copies, axis=0), np.repeat(values, copies), np.repeat(clusters, copies))
    np.testing.assert_allclose(often[0], once[0], atol=1e-10)
    np.testing.assert_allclose(often[1], once[1], rtol=1e-7)


def test_the_order_of_rows_does_not_matter():
    design, values = drawn(1)
    clusters = np.random.default_rng(1).integers(0, 9, len(values))
    order = np.random.default_rng(2).permutation(len(values))
    once = least_squares(design, values, clusters)
    mixed = least_squares(design[order], values[order], clusters[order])
    np.testing.assert_allclose(mixed, once, rtol=1e-8)


def test_errors_shared_by_a_cluster_are_counted():
    """The mean of groups that move together: intervals that take rows for independent would miss far too often."""
    hits = {"clusters": 0, "rows": 0}
    for seed in range(300):
        rng = np.random.default_rng(seed)
        clusters = np.repeat(np.arange(40), 5)
        design = rng.normal(size=40)[clusters][:, None]
        values = rng.normal(size=40)[clusters] + 0.1 * rng.normal(size=200)
        for name, groups in (("clusters", clusters), ("rows", np.arange(200))):
            found, error = least_squares(design, values, groups)
            hits[name] += abs(found[0]) <= 2.02 * error[0]
    assert 0.91 <= hits["clusters"] / 300 <= 0.985
    assert hits["rows"] / 300 < 0.75
