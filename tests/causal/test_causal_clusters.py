"""Clusters of effect profiles on planted roles, and the linkage of weighted points against scipy's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.cluster.hierarchy import linkage
from torch import nn

from whyprune.causal.feature_clusters import causal_feature_clusters
from whyprune.criteria import feature_clusters
from whyprune.scoring.clusters import clustered, weighted_ward
from whyprune.structure.trace import trace

HERE, MOVED, PLUS, MINUS, SPECIAL, WEAK, DEAD, OTHER = range(8)


class Roles(nn.Module):
    """(B, 3, 8, 8) to three logits, linear in the maps of eight units."""

    def __init__(self):
        super().__init__()
        self.units = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.read = nn.Conv2d(8, 3, 1)
        with torch.no_grad():
            kernels, weights = torch.zeros(8, 3, 3, 3), torch.zeros(3, 8)
            kernels[HERE, 0, 1, 1] = 1
            kernels[MOVED, 0, 0, 2] = 2  # sees the same two steps away: other maps, the same sum
            weights[:, HERE], weights[:, MOVED] = torch.tensor([2.0, -1, 0]), torch.tensor([1.0, -0.5, 0])
            kernels[PLUS, 0], kernels[MINUS, 0] = torch.eye(3), torch.eye(3)
            weights[:, PLUS], weights[:, MINUS] = torch.tensor([0.0, 1, 0]), torch.tensor([0.0, -1, 0])
            kernels[SPECIAL, 1, 1, 1] = 1
            weights[:, SPECIAL] = torch.tensor([2.0, -1, 0])  # as `HERE`, in images of one class only
            kernels[WEAK], weights[:, WEAK] = kernels[HERE], 0.1 * weights[:, HERE]
            kernels[OTHER, 0, 2] = -1
            weights[:, OTHER] = torch.tensor([0.0, 0, 1])
            self.units.weight.copy_(kernels)
            self.read.weight.copy_(weights[:, :, None, None])

    def forward(self, x):
        return self.read(F.relu(self.units(x))).mean(dim=(2, 3))


@pytest.fixture(scope="module")
def roles():
    generator = torch.Generator().manual_seed(0)
    x = F.pad(
        torch.rand(48, 3, 4, 4, generator=generator) + torch.randn(48, 3, 1, 1, generator=generator), (2, 2, 2, 2)
    )
    x[:, 1] *= (torch.arange(48) % 3 == 2).reshape(-1, 1, 1)
    return trace(Roles().eval(), x[:2]), x


def scores(found):
    return np.array([found[f"units:{k}"] for k in range(8)])


def test_what_does_the_same_is_one_cluster_whatever_its_maps_and_weights(roles):
    network, x = roles
    causal, plain = scores(causal_feature_clusters(network, [x])), scores(feature_clusters(network, [x]))
    least = np.sort(causal[[PLUS, MINUS, SPECIAL, OTHER]])[0]
    assert min(causal[[HERE, MOVED]]) < 1e-3 * least
    assert max(causal[[HERE, MOVED]]) > least / 2
    assert min(plain[[HERE, MOVED]]) > 0.1, "their maps differ, so that maps alone do not tell"


def test_equal_maps_that_are_read_with_opposite_signs_are_apart(roles):
    network, x = roles
    causal, plain = scores(causal_feature_clusters(network, [x])), scores(feature_clusters(network, [x]))
    assert min(plain[[PLUS, MINUS]]) < 1e-6, "to maps alone they are the same"
    assert min(causal[[PLUS, MINUS]]) > 100 * np.sort(causal)[2]


def test_a_unit_of_one_class_is_apart_and_small_and_dead_ones_go_first(roles):
    network, x = roles
    found = causal_feature_clusters(network, [x])
    causal = scores(found)
    assert np.argsort(causal)[0] == DEAD
    assert set(np.argsort(causal)[1:3]) <= {WEAK, HERE, MOVED}
    assert causal[WEAK] < 1e-3 * max(causal[[HERE, MOVED]]), "of a cluster the larger effect stays"
    assert causal[SPECIAL] > 100 * causal[WEAK]
    assert found.natural_widths["units"] <= 5


@pytest.mark.parametrize("seed", range(5))
def test_with_equal_weights_the_linkage_is_that_of_scipy(seed):
    points = np.random.default_rng(seed).normal(size=(30, 6))
    found, expected = weighted_ward(points, np.ones(30)), linkage(points, "ward")
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_a_weight_counts_as_so_many_copies(seed):
    rng = np.random.default_rng(seed)
    points, counts = rng.normal(size=(12, 4)), rng.integers(1, 5, 12)
    copies = linkage(np.repeat(points, counts, axis=0), "ward")
    np.testing.assert_allclose(weighted_ward(points, counts.astype(float))[:, 2], copies[-11:, 2], rtol=1e-7, atol=1e-9)


def test_what_has_no_weight_is_no_cluster():
    points = np.eye(5)
    heights, width = clustered(points, np.array([1.0, 2.0, 0.0, 3.0, 0.0]))
    assert (heights[[2, 4]] == 0).all()
    assert (heights[[0, 1, 3]] > 0).all()
    assert np.argmax(heights) == 3
    assert width <= 3
    assert clustered(points, np.zeros(5))[1] == 1
