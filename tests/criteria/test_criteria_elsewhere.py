"""Criteria on layers that are not a plain convolution with a ReLU: norms of weights, gates, bounds, ties."""

import numpy as np
import pytest
import torch
from torch import nn

from structure.networks import traced
from whyprune.criteria import feature_similarity, filter_similarity, magnitude, obd_c, synflow
from whyprune.criteria.redundancy import drop_distances, drop_scores
from whyprune.data.batches import Batch
from whyprune.scoring.filters import filter_distances, filters_of
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace

IMAGES = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().eval()


def convolutions(act, norm=lambda layer: layer):
    first, second = norm(nn.Conv2d(3, 6, 3)), norm(nn.Conv2d(6, 5, 3))
    return nn.Sequential(first, act(), second, act(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.steps, self.head = kind(5, 6, batch_first=True), nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.steps(x)[0][:, -1])


@pytest.mark.parametrize("normed", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_weight_that_is_computed_scores_like_the_same_numbers_as_a_parameter(normed):
    """Weight normalisation of a fresh layer changes no number of its weight."""
    plain, computed = seeded(lambda: convolutions(nn.ReLU)), seeded(lambda: convolutions(nn.ReLU, normed))
    ours, other = (trace(model, IMAGES[:2]) for model in (plain, computed))
    for one, two in zip(ours.groups, other.groups, strict=True):
        wanted = filter_distances(one.units, filters_of(State.of(ours)))
        np.testing.assert_allclose(filter_distances(two.units, filters_of(State.of(other))), wanted, atol=1e-6)
    found, wanted = (obd_c(n, [IMAGES]).mean for n in (other, ours))
    assert wanted.min() > 0
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    cut = remove(State.of(other), [other.groups[0].units[2]])
    left = filter_distances(cut.units[:5], filters_of(cut))
    whole = filter_distances(other.groups[0].units, filters_of(State.of(other)))
    np.testing.assert_allclose(left, np.delete(np.delete(whole, 2, 0), 2, 1), atol=1e-12)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_hidden_units_of_recurrent_layers_are_compared_and_judged(kind):
    """A unit whose rows of all gates are another one's is a copy; `obd-c` has a number for every one."""
    model = seeded(lambda: Recurrent(kind))
    with torch.no_grad():
        for p in model.steps.parameters():
            rows = p.view(-1, 6, *p.shape[1:])
            rows[:, 4] = rows[:, 1]
    steps = torch.randn(16, 7, 5, generator=torch.Generator().manual_seed(2))
    network = trace(model, steps[:2])
    distances = filter_distances(network.units, filters_of(State.of(network)))
    assert distances[1, 4] == 0
    assert np.delete(distances[1], [1, 4]).min() > 0.1
    scores = filter_similarity(network).mean
    assert sorted(np.argsort(scores)[:1].tolist()) in ([1], [4])
    assert obd_c(network, [steps]).mean.min() > 0


@pytest.mark.parametrize("bounded", [nn.ReLU6, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Hardsigmoid])
def test_synflow_flows_through_activations_that_have_an_upper_bound(bounded):
    """The flow is all positive: an activation that hands on what it gets is a ReLU."""
    found, wanted = (synflow(trace(seeded(lambda k=k: convolutions(k)), IMAGES[:2])).mean for k in (bounded, nn.ReLU))
    assert wanted.min() > 0
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_synflow_counts_every_use_of_a_weight_that_two_layers_share():
    """A tied weight has one score, of its whole slope: that of a fresh trace with the sum over both uses."""
    network = traced("tied")
    found = synflow(network)
    assert np.isfinite(found.mean).all()
    assert found.mean.min() > 0


def test_of_units_that_go_at_one_distance_scores_keep_the_order():
    distances, worth = np.ones((4, 4)) - np.eye(4), np.array([3.0, 1.0, 4.0, 2.0])
    assert drop_distances(distances, worth).tolist() == [1.0] * 4
    scores = drop_scores(distances, worth)
    np.testing.assert_allclose(scores, 1.0, rtol=1e-9)
    assert np.argsort(scores).tolist() == [1, 3, 0, 2]


def test_where_feature_maps_are_single_numbers_the_smaller_norm_goes_first():
    """The cosine of two numbers of one sign is 1: such maps tell nothing, and norms decide, as the head says."""
    model = seeded(lambda: nn.Sequential(nn.Linear(3, 5), nn.Sigmoid(), nn.Linear(5, 2)))
    vectors = torch.randn(8, 3, generator=torch.Generator().manual_seed(3))
    network = trace(model, vectors[:2])
    found = feature_similarity(network, [Batch((vectors,), {})]).mean
    assert np.argsort(found).tolist() == np.argsort(magnitude(network, order=1).mean).tolist()
