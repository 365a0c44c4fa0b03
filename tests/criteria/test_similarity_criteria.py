"""Criteria of redundancy against brute force, and on planted duplicates and clusters."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN
from torch import nn

from structure.networks import traced
from whyprune.allocation import Budget, allocate
from whyprune.criteria import feature_clusters, feature_density, feature_similarity, filter_similarity
from whyprune.criteria.feature_clusters import clustered
from whyprune.criteria.feature_density import NEVER, epsilons
from whyprune.criteria.feature_similarity import cosine_distances
from whyprune.criteria.redundancy import drop_distances
from whyprune.errors import InputError
from whyprune.scoring.filters import channel_distances
from whyprune.structure.trace import trace
from whyprune.testing import planted


def drops_by_hand(distances, worth):
    """The definition, word by word: look for the closest pair that is left, again and again."""
    left, found = set(range(len(worth))), np.full(len(worth), distances.max())
    while len(left) > 1:
        pairs = [(distances[i, j], i, j) for i in left for j in left if i < j]
        _, i, j = min(pairs)
        goes = i if worth[i] < worth[j] else j
        left.discard(goes)
        found[goes] = distances[i, j]
    return found


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 9), st.integers(0, 10_000))
def test_of_the_closest_two_that_are_left_the_lesser_goes(count, seed):
    rng = np.random.default_rng(seed)
    distances = np.abs(rng.normal(size=(count, count)))
    distances = np.triu(distances, 1) + np.triu(distances, 1).T
    worth = rng.random(count)
    np.testing.assert_array_equal(drop_distances(distances, worth), drops_by_hand(distances, worth))


def test_the_distance_of_filters_is_the_mean_over_channels_of_relative_differences():
    filters = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    filters[1, 2] = filters[0, 2] = 0
    found = channel_distances(filters)
    for i in range(4):
        for j in range(4):
            parts = []
            for c in range(3):
                size = float(filters[i, c].norm() + filters[j, c].norm())
                parts.append(float((filters[i, c] - filters[j, c]).norm()) / size if size else 0.0)
            assert found[i, j] == pytest.approx(np.mean(parts), abs=1e-12)
    assert found.max() <= 1
    assert channel_distances(-filters)[0, 1] == pytest.approx(found[0, 1])


class Copies(nn.Module):
    """Ten channels, of which 2 to 6 are copies of one another, scaled up one by one."""

    def __init__(self):
        super().__init__()
        self.units, self.read = nn.Conv2d(3, 10, 3, padding=1), nn.Conv2d(10, 4, 3)
        with torch.no_grad():
            self.units.bias.zero_()
            for k in range(3, 7):
                self.units.weight[k] = self.units.weight[2] * (1 + 0.1 * k)
                self.read.weight[:, k] = self.read.weight[:, 2]

    def forward(self, x):
        return self.read(torch.relu(self.units(x))).mean(dim=(2, 3))


@pytest.fixture(scope="module")
def copies():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return trace(Copies().eval(), torch.zeros(2, 3, 8, 8)), torch.randn(24, 3, 8, 8)


def test_of_copies_in_direction_all_but_one_go_first_by_their_maps(copies):
    network, images = copies
    for criterion in (feature_similarity, feature_clusters):
        scores = criterion(network, [images[:16], images[16:]]).by_unit()
        same = sorted(scores[f"units:{k}"] for k in range(2, 7))
        others = [scores[f"units:{k}"] for k in (0, 1, 7, 8, 9)]
        assert max(same[:4]) < 1e-6 < min([same[4], *others])


def test_five_copies_are_one_cluster_and_the_width_is_clusters_plus_noise(copies):
    network, images = copies
    found = feature_density(network, [images])
    assert (np.sort(found.mean)[:4] < 1e-6).all()
    assert np.sort(found.mean)[4] > 1e-6
    norms = network.model.units.weight.detach().abs().sum(dim=(1, 2, 3)) + network.model.read.weight.detach().abs().sum(
        dim=(0, 2, 3)
    )
    assert set(np.argsort(found.mean, kind="stable")[:4]) == set(np.argsort(norms.numpy(), kind="stable")[:4])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(6, 24),
    st.integers(0, 10_000),
    st.floats(0.02, 1.2),
    st.sampled_from([2, 3, 5]),
)
def test_widths_at_every_epsilon_are_those_of_dbscan(count, seed, epsilon, min_samples):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(4, 6))
    distances = cosine_distances(centres[rng.integers(0, 4, count)] + rng.normal(scale=0.4, size=(count, 6)))
    distances = (distances + distances.T) / 2
    if np.abs(distances - epsilon).min() < 1e-9:
        return
    labels = DBSCAN(eps=epsilon, min_samples=min_samples, metric="precomputed").fit(distances).labels_
    width = len(set(labels) - {-1}) + int((labels == -1).sum())
    assert count - int((epsilons(distances, min_samples) <= epsilon).sum()) == width


def test_a_unit_that_does_nothing_goes_first_and_glues_no_others_together():
    case = planted.case()
    found = feature_density(case.network, [case.images])
    own = [k for k, group in enumerate(found.groups) if group == "units"]
    assert found.mean[own].argmin() == planted.DEAD
    assert len(set(found.mean[own].round(6))) > 3


def test_too_few_maps_never_make_a_cluster_and_one_epsilon_serves_all_groups():
    assert (epsilons(np.zeros((4, 4)), 5) == NEVER).all()
    network = traced("residual")
    images = torch.randn(12, *network.example.args[0].shape[1:], generator=torch.Generator().manual_seed(0))
    assert feature_density(network, [images]).across_groups


@pytest.mark.parametrize("clusters", [3, 5, 8])
def test_planted_clusters_are_found_by_their_silhouette_and_keep_one_each(clusters):
    rng = np.random.default_rng(clusters)
    centres = np.eye(16)[:clusters]
    belongs = np.concatenate([np.arange(clusters), rng.integers(0, clusters, 24 - clusters)])
    scores, width = clustered(centres[belongs] + rng.normal(scale=0.02, size=(24, 16)))
    assert width == clusters
    assert len(set(belongs[np.argsort(scores)[-clusters:]])) == clusters


def test_maps_of_zeros_go_first_and_are_no_cluster():
    vectors = np.eye(6)
    vectors[3] = 0
    scores, width = clustered(vectors)
    assert scores[3] == 0
    assert scores[[0, 1, 2, 4, 5]].min() > 0
    assert width <= 5
    assert clustered(np.zeros((4, 2)))[1] == 1


def test_natural_widths_decide_how_many_stay_where_the_budget_allows_it(copies):
    network, images = copies
    found = feature_clusters(network, [images])
    width = found.natural_widths["units"]
    exact = network.cost(network.select([f"units:{k}" for k in range(10 - width)]))
    plan = allocate(network, found, Budget(macs=exact.macs / network.cost().macs), allocation="natural-widths")
    assert plan.removed_per_group()["units"] == 10 - width
    with pytest.raises(InputError, match="needs a scorer that finds widths"):
        allocate(network, filter_similarity(network), Budget(macs=0.5), allocation="natural-widths")
