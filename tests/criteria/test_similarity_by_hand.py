"""Criteria of similarity from end to end, against formulas written down a second time on hooked maps and weights."""

import numpy as np
import pytest
import torch
from sklearn.cluster import DBSCAN
from torch import nn

from structure.networks import traced
from whyprune.criteria import feature_density, feature_similarity, filter_similarity
from whyprune.scoring.filters import filter_distances, filters_of
from whyprune.structure.state import State
from whyprune.structure.trace import trace

WIDTH = 14


@pytest.fixture(scope="module")
def seen():
    """A network, images, and the group `0` by hand: average maps, filters, and L1 norms of its coupled weights."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(4)
        model = nn.Sequential(
            nn.Conv2d(3, WIDTH, 3), nn.ReLU(), nn.Conv2d(WIDTH, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 3)
        ).eval()
        for copy in (4, 7, 9, 12, 13):  # nearly alike, so that DBSCAN finds clusters and noise
            model[0].weight[copy] = model[0].weight[1] * (1 + 0.1 * copy) + 0.02 * torch.randn(3, 3, 3)
    network = trace(model, torch.zeros(2, 3, 8, 8))
    images = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    kept = {}
    handle = model[2].register_forward_pre_hook(lambda _, args: kept.update(maps=args[0].detach().double()))
    model(images)
    handle.remove()
    maps = kept["maps"].mean(dim=0).flatten(1).numpy()
    first, second = model[0].weight.detach().double(), model[2].weight.detach().double()
    norms = (first.abs().sum(dim=(1, 2, 3)) + second.abs().sum(dim=(0, 2, 3))).numpy() / 2
    return network, images, maps, first.numpy(), norms


def cosine(maps):
    found = np.zeros((len(maps), len(maps)))
    for i, a in enumerate(maps):
        for j, b in enumerate(maps):
            found[i, j] = 0.0 if i == j else 1 - a @ b / np.sqrt((a @ a) * (b @ b))
    return found


def gone_at(distances, goes_first):
    """The distance at which every unit goes, the closest pair that is left first; `goes_first(i, j)` says who goes."""
    left, found = list(range(len(distances))), {}
    while len(left) > 1:
        i, j = min(((i, j) for i in left for j in left if i < j), key=lambda pair: distances[pair])
        gone = goes_first(i, j)
        found[gone] = distances[i, j]
        left.remove(gone)
    found[left[0]] = distances.max()
    return np.array([found[k] for k in range(len(distances))])


def scores(found):
    return np.array([found[f"0:{k}"] for k in range(WIDTH)])


def test_feature_similarity_drops_the_more_redundant_of_the_most_similar_average_maps(seen):
    network, images, maps, _, _ = seen
    apart = cosine(maps)
    redundancy = [1 - row[np.arange(WIDTH) != k].mean() for k, row in enumerate(apart)]
    expected = gone_at(apart, lambda i, j: i if redundancy[i] > redundancy[j] else j)
    np.testing.assert_allclose(scores(feature_similarity(network, [images[:12], images[12:]])), expected, atol=1e-6)


def test_filter_similarity_drops_the_smaller_of_the_most_similar_filters(seen):
    network, _, _, filters, norms = seen
    apart = np.zeros((WIDTH, WIDTH))
    for i, a in enumerate(filters):
        for j, b in enumerate(filters):
            size = [np.sqrt((a[c] ** 2).sum()) + np.sqrt((b[c] ** 2).sum()) for c in range(3)]
            apart[i, j] = np.mean([np.sqrt(((a[c] - b[c]) ** 2).sum()) / size[c] for c in range(3)])
    expected = gone_at(apart, lambda i, j: i if norms[i] < norms[j] else j)
    np.testing.assert_allclose(scores(filter_similarity(network)), expected, atol=1e-9)


@pytest.mark.parametrize("epsilon", [0.0005, 0.003, 0.02, 0.1, 0.3, 0.6])
def test_as_many_units_have_gone_at_a_radius_as_dbscan_finds_no_clusters_and_noise_for(seen, epsilon):
    network, images, maps, _, norms = seen
    labels = DBSCAN(eps=epsilon, min_samples=5, metric="precomputed").fit(np.abs(cosine(maps))).labels_
    width = len(set(labels) - {-1}) + int((labels == -1).sum())
    found = scores(feature_density(network, [images]))
    gone = np.flatnonzero(found <= epsilon)
    assert len(gone) == WIDTH - width
    assert set(gone) == set(np.argsort(norms)[: len(gone)])  # those of smallest norm


def test_the_radii_above_see_noise_clusters_and_both(seen):
    _, _, maps, _, _ = seen
    widths = []
    for epsilon in (0.0005, 0.003, 0.02, 0.1, 0.3, 0.6):
        labels = DBSCAN(eps=epsilon, min_samples=5, metric="precomputed").fit(np.abs(cosine(maps))).labels_
        widths.append(len(set(labels) - {-1}) + int((labels == -1).sum()))
    assert widths[0] == WIDTH
    assert widths[-1] == 1
    assert len(set(widths)) >= 3


def test_layers_are_averaged_in_the_order_of_the_network_in_every_process():
    """The order of a set of names is another one in every process, and so was the rounding of a mean."""
    state = State.of(traced("residual"))
    group, filters = next(g for g in state.network.groups if g.name != "first.0"), filters_of(state)

    def stacked(filters):
        seen = []
        filter_distances(group.units, filters, lambda parts, axis: seen.append(parts) or parts[0])
        return seen[0]

    there, back = stacked(filters), stacked(filters[::-1])
    assert len(there) == 2
    assert not np.array_equal(there[0], there[1])
    assert np.array_equal(there, back[::-1])
