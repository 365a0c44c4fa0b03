"""Searches on planted landscapes: a made-up harm of widths whose best point is known."""

import itertools
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from whyprune.allocation import ALLOCATORS, Budget, Space, along_scores
from whyprune.criteria import random_scores
from whyprune.structure.trace import trace

SEARCHES = ["particle-swarm", "genetic", "informed-swarm", "informed-genetic"]


@cache
def network():
    return trace(
        nn.Sequential(
            nn.Conv2d(3, 10, 3, padding=1), nn.ReLU(), nn.Conv2d(10, 12, 3, padding=1), nn.ReLU(),
            nn.Conv2d(12, 10, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 4),
        ).eval(),
        torch.zeros(2, 3, 8, 8),
    )  # fmt: skip


class Landscape:
    """Harm = sum of weight * (share removed)^2: a group of large weight should stay whole."""

    def __init__(self, traced, weights):
        self.network, self.weights, self.forward_passes, self.asked = traced, weights, 0.0, []

    def __call__(self, units):
        self.asked.append(tuple(units))
        gone = {g.name: 0 for g in self.network.groups}
        for unit in units:
            gone[unit.split(":")[0]] += 1
        return self.of([gone[g.name] for g in self.network.groups])

    def of(self, gone):
        sizes = [len(g.units) for g in self.network.groups]
        return float(sum(w * (n / s) ** 2 for w, n, s in zip(self.weights, gone, sizes, strict=True)))


def case(weights):
    traced = network()
    space, landscape = Space(traced), Landscape(traced, weights)
    objective = along_scores(space, random_scores(traced), evaluator=landscape)
    return space, objective, landscape


def best_of_all(space, landscape, budget):
    sizes = [len(g.units) for g in space.bounds.groups.values()]
    dense, best = space.network.cost(), np.inf
    for gone in itertools.product(*(range(s) for s in sizes)):
        harm = landscape.of(gone)
        if harm < best and budget.met_by(space.cost(dict(zip(space.bounds.groups, gone, strict=True))), dense):
            best = harm
    return best


@pytest.fixture
def chosen(request):
    name = request.param
    if name.endswith("genetic"):
        pytest.importorskip("pymoo", reason="the extra `search` is not installed")
    return ALLOCATORS(name)


@pytest.mark.parametrize("chosen", SEARCHES, indirect=True)
@pytest.mark.parametrize("weights", [(1.0, 30.0, 1.0), (20.0, 1.0, 1.0), (1.0, 1.0, 40.0)])
def test_a_search_comes_close_to_the_best_of_all_widths(chosen, weights):
    space, objective, landscape = case(weights)
    budget = Budget(macs=0.5)
    point = chosen(space, objective, budget, seed=0)
    assert budget.met_by(space.cost(point), space.network.cost())
    found = landscape.of([point[name] for name in space.bounds.groups])
    best = best_of_all(space, landscape, budget)
    assert best <= found <= 1.3 * best + 0.02


@pytest.mark.parametrize("chosen", SEARCHES, indirect=True)
def test_a_search_is_never_worse_than_where_it_starts_and_repeats_itself(chosen):
    space, objective, landscape = case((3.0, 1.0, 2.0))
    budget = Budget(macs=0.6)
    start = ALLOCATORS("global")(space, objective, budget)
    point = chosen(space, objective, budget, seed=4)
    counts = [[p[name] for name in space.bounds.groups] for p in (point, start)]
    assert landscape.of(counts[0]) <= landscape.of(counts[1])
    again = case((3.0, 1.0, 2.0))
    assert chosen(*again[:2], budget, seed=4) == point
    assert again[2].asked == landscape.asked
