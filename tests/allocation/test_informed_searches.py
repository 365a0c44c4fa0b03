"""Searches that start at curves: never worse than the curves' plan, and pulled where a unit is cheap."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny
from allocation.test_searches import Landscape, network
from whyprune.allocation import ALLOCATORS, Budget, Space, along_curves, candidates
from whyprune.allocation.evaluator import MeasuredEffects
from whyprune.allocation.slopes import Slopes
from whyprune.data.batches import as_batches
from whyprune.effects.effects import ResponseCurve
from whyprune.scoring.contract import Question
from whyprune.scoring.registry import SCORERS
from whyprune.structure.state import State
from whyprune.structure.trace import trace

BUDGET = Budget(macs=0.5)


def curves(traced, weights):
    """Those of a landscape: weight * (share removed)^2."""
    found = {}
    for group, weight in zip(traced.groups, weights, strict=True):
        gone = np.arange(len(group.units))
        effect = weight * (gone / len(group.units)) ** 2
        order = tuple(u.name for u in group.units[:-1])
        found[group.name] = ResponseCurve(group.name, order, gone, effect, 0 * effect)
    return found


def case(said, true):
    traced = network()
    space = Space(traced)
    return space, along_curves(space, curves(traced, said), evaluator=Landscape(traced, true))


@pytest.mark.parametrize("name", ["informed-swarm", "informed-genetic", "particle-swarm", "genetic"])
@pytest.mark.parametrize("true", [(1.0, 4.0, 2.0), (30.0, 1.0, 1.0)])
def test_no_search_ends_worse_than_the_plan_along_the_curves(name, true):
    """The curves say the first of these, so that the second finds them wrong."""
    if name.endswith("genetic"):
        pytest.importorskip("pymoo", reason="the extra `search` is not installed")
    space, objective = case((1.0, 4.0, 2.0), true)
    start = ALLOCATORS("curves")(space, objective, BUDGET)
    point = ALLOCATORS(name)(space, objective, BUDGET, seed=1)
    assert objective.units(start) == tuple(objective.evaluator.asked[0]), "the curves' plan itself is measured"
    assert objective.measured(point) <= objective.measured(start)
    assert BUDGET.met_by(space.cost(point), space.network.cost())


def test_pulls_are_towards_groups_that_are_dear_and_away_from_cheap_ones():
    space, objective = case((1.0, 40.0, 1.0), (1.0, 1.0, 1.0))
    pulls = Slopes(space, objective, BUDGET).pulls
    at_half = pulls(np.array([5.0, 6.0, 5.0]))
    assert at_half[1] == pytest.approx(1.0)
    assert at_half[[0, 2]].max() < at_half[1]
    nothing = {
        name: ResponseCurve(name, c.order, c.removed, 0 * c.effect, c.effect) for name, c in objective.curves.items()
    }
    assert Slopes(space, along_curves(space, nothing), BUDGET).pulls(np.array([5.0, 6.0, 5.0])).tolist() == [0, 0, 0]
    flat = {**objective.curves, space.network.groups[0].name: next(iter(nothing.values()))}
    assert Slopes(space, along_curves(space, flat), BUDGET).pulls(np.array([5.0, 6.0, 5.0]))[0] == -1


def test_at_the_best_plan_along_curves_no_group_is_pulled_hard():
    space, objective = case((3.0, 4.0, 2.0), (1.0, 1.0, 1.0))
    best = ALLOCATORS("curves")(space, objective, BUDGET)
    slopes, sizes = Slopes(space, objective, BUDGET), [10, 12, 10]
    widths = np.array([size - best[name] for name, size in zip(space.bounds.groups, sizes, strict=True)], dtype=float)
    off = widths + np.array([4.0, -4.0, 0.0]) * (1 if widths[0] + 4 <= 10 else -1)
    assert np.abs(slopes.pulls(widths)).max() < np.abs(slopes.pulls(np.clip(off, 1, sizes))).max()
    assert np.abs(slopes.pulls(widths)).max() < 0.5


@pytest.fixture(scope="module")
def measured_curves():
    """A trained network, its images and its curves."""
    state = State.of(trace(tiny.trained(), torch.zeros(2, 1, 8, 8)))
    batches = list(as_batches(tiny.batches(0, 192)))
    return state, batches, SCORERS("curves")(state, batches, Question())


@pytest.mark.parametrize("name", ["informed-swarm", "informed-genetic"])
def test_on_a_network_the_search_is_no_worse_than_its_start_on_the_images_it_measured(name, measured_curves):
    if name.endswith("genetic"):
        pytest.importorskip("pymoo", reason="the extra `search` is not installed")
    state, batches, effects = measured_curves
    space = Space(state)
    evaluator = MeasuredEffects(state, batches[:1], fit=batches[1:])
    objective = along_curves(space, effects.curves, evaluator=evaluator)
    objective = replace(objective, plans=13)
    start = ALLOCATORS("curves")(space, objective, BUDGET)
    point = ALLOCATORS(name)(space, objective, BUDGET, seed=0)
    assert 2 <= len(evaluator.known) <= 13
    assert tuple(sorted(objective.units(start))) in evaluator.known
    assert objective.measured(point) == min(evaluator.known.values())
    assert objective.measured(point) <= objective.measured(start)


def test_the_start_is_the_very_plan_even_where_budget_is_left(monkeypatch):
    space, objective = case((1.0, 4.0, 2.0), (1.0, 1.0, 1.0))
    frugal = dict(ALLOCATORS("curves")(space, objective, Budget(macs=0.3)))
    monkeypatch.setattr(candidates, "searched", lambda *_: frugal)
    found = candidates.Candidates(space, objective, Budget(macs=0.6))
    assert found.point(found.start()) == frugal
