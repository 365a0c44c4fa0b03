"""Every allocator meets every budget that can be met, and takes the lowest effects."""

import dataclasses
import itertools
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from allocation.made_up import COSTS, plan_along, some_effects
from structure.networks import traced
from whyprune.allocation import Budget, Space, allocate, check_reachable
from whyprune.allocation.greedy import lower_hull
from whyprune.criteria import random_scores
from whyprune.effects.effects import ResponseCurve
from whyprune.errors import BudgetError, InputError
from whyprune.structure.trace import trace

NAMES = ["residual", "projection", "concat", "separable", "flatten", "squeeze excite"]


def smallest(network):
    space = Space(network)
    counts = dict(space.start)
    for group in network.groups:
        counts[group.name] += space.bounds.left(counts, group.name)
    return space.cost(counts)


@pytest.mark.parametrize("allocation", ["uniform", "global", "curves"])
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), bounds=st.dictionaries(st.sampled_from(COSTS), st.floats(0, 1), min_size=1))
def test_budgets_that_can_be_met_are_met_and_no_axis_is_emptied(name, allocation, seed, bounds):
    network = traced(name)
    dense, least = network.cost(), smallest(network)
    ratios = {}
    for kind, share in bounds.items():
        floor = getattr(least, kind) / getattr(dense, kind)
        ratios[kind] = min(1.0, floor + share * (1 - floor) + 1e-6)
    budget = Budget(**ratios)
    plan = allocate(network, some_effects(network, seed), budget, allocation=allocation)
    for kind, limit in budget.limits(dense).items():
        assert getattr(plan, kind) <= limit
    assert network.cost(network.select(plan.units)).macs == plan.macs
    assert len(set(plan.units)) == len(plan.units)
    for entry in plan.removed:
        assert len(entry.indices) < network.cost.shapes[entry.parameter][entry.axis]


@pytest.mark.parametrize("kind", COSTS)
@pytest.mark.parametrize("name", NAMES)
def test_an_impossible_budget_names_the_smallest_ratio_and_that_one_works(name, kind):
    network = traced(name)
    effects = some_effects(network)
    with pytest.raises(BudgetError) as caught:
        check_reachable(Space(network), Budget(**{kind: 1e-6}))
    ratio = float(str(caught.value).rpartition(" ")[2])
    for allocation in ("uniform", "global", "curves"):
        with pytest.raises(BudgetError):
            allocate(network, effects, Budget(**{kind: ratio - 2e-4}), allocation=allocation)
        plan = allocate(network, effects, Budget(**{kind: ratio}), allocation=allocation)
        assert getattr(plan, kind) <= ratio * getattr(network.cost(), kind)


def test_uniform_removes_the_lowest_effects_of_every_group_and_the_same_share():
    network = traced("separable")
    effects = some_effects(network)
    plan = allocate(network, effects, Budget(macs=0.5), allocation="uniform")
    gone = plan.removed_per_group()
    shares = [gone.get(g.name, 0) / len(g.units) for g in network.groups]
    assert max(shares) - min(shares) <= 1 / min(len(g.units) for g in network.groups)
    for group in network.groups:
        assert_lowest_go(group.units, plan, effects.by_unit())


def test_uniform_removes_no_more_than_it_must():
    """With one unit less in any group the budget would not hold, or the shares would not be the same."""
    network = traced("separable")
    budget = Budget(macs=0.5)
    plan = allocate(network, some_effects(network), budget, allocation="uniform")
    gone = plan.removed_per_group()
    fewer = {g: max(gone.get(g.name, 0) - 1, 0) for g in network.groups}
    assert not budget.met_by(network.cost.of_groups(fewer), network.cost())


def assert_lowest_go(units, plan, scores):
    gone = [scores[u.name] for u in units if u.name in plan.units]
    kept = [scores[u.name] for u in units if u.name not in plan.units]
    assert not gone or not kept or max(gone) <= min(kept)


def test_global_removes_the_lowest_measured_effects_wherever_they_are():
    network = traced("residual")
    effects = some_effects(network)
    plan = allocate(network, effects, Budget(macs=0.6), allocation="global")
    assert_lowest_go(network.units, plan, effects.by_unit())
    assert plan.predicted == pytest.approx(sum(effects[u] for u in plan.units))


def test_global_divides_scores_by_their_groups_mean():
    network = traced("residual")
    scores = random_scores(network)
    by_group = {g.name: np.mean([scores[u] for u in g.units]) for g in network.groups}
    plan = allocate(network, scores, Budget(macs=0.6), allocation="global")
    scaled = {u.name: scores[u] / by_group[u.group] for u in network.units}
    assert_lowest_go(network.units, plan, scaled)
    assert plan.predicted is None


def test_the_allocation_follows_from_what_was_measured():
    network = traced("residual")
    budget = Budget(macs=0.7)
    for effects, name in (
        (some_effects(network), "curves"),
        (some_effects(network, curves=False), "global"),
        (random_scores(network), "uniform"),
    ):
        assert allocate(network, effects, budget) == allocate(network, effects, budget, allocation=name)
    with pytest.raises(InputError, match="curves"):
        allocate(network, random_scores(network), budget, allocation="curves")
    with pytest.raises(InputError, match="no allocation named 'knapsack'"):
        allocate(network, random_scores(network), budget, allocation="knapsack")


@settings(max_examples=100, deadline=None)
@given(heights=st.lists(st.floats(-5, 5), min_size=1, max_size=8))
def test_the_hull_is_the_largest_convex_curve_below_the_points(heights):
    points = [(float(x), y) for x, y in enumerate(heights)]
    xs, ys = zip(*lower_hull(points), strict=True)
    found = np.interp(range(len(points)), xs, ys)
    for x in range(len(points)):
        chords = [
            np.interp(x, [a[0], b[0]], [a[1], b[1]])
            for a, b in itertools.product(points, points)
            if a[0] <= x <= b[0] and (a[0] < b[0] or a[0] == x)
        ]
        assert found[x] == pytest.approx(min(chords), abs=1e-9)


class TwoBranches(nn.Module):
    """No parameter belongs to two groups: what removal saves adds up."""

    def __init__(self):
        super().__init__()
        self.narrow = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4))
        self.wide = nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 4))

    def forward(self, x):
        return self.narrow(x) + self.wide(torch.cat([x, x.abs()], 1))


@cache
def additive():
    return trace(TwoBranches().eval(), torch.randn(2, 5))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 9999), share=st.floats(0.1, 0.9))
def test_curves_spend_no_more_than_brute_force_up_to_the_last_step(seed, share):
    """Costs add up over groups here: the greedy walk is optimal up to the effect of its last step."""
    network = additive()
    rng = np.random.default_rng(seed)
    curves = {g.name: convex_curve(g, rng) for g in network.groups}
    dense, least = network.cost().params, smallest(network).params
    budget = Budget(params=least + share * (dense - least))
    plan = plan_along(network, curves, budget)
    best = min(
        sum(curve.effect[n] for curve, n in zip(curves.values(), counts, strict=True))
        for counts in itertools.product(*(range(len(c.removed)) for c in curves.values()))
        if budget.met_by(network.cost.of_groups(dict(zip(network.groups, counts, strict=True))), network.cost())
    )
    last_step = max(np.diff(curve.effect).max() for curve in curves.values())
    assert best - 1e-9 <= plan.predicted <= best + last_step + 1e-9
    spent = sum(curves[name].effect[count] for name, count in plan.removed_per_group().items())
    assert plan.predicted == pytest.approx(spent)


def convex_curve(group, rng) -> ResponseCurve:
    effect = np.r_[0.0, np.cumsum(np.sort(rng.gamma(1.0, size=len(group.units) - 1)))]
    return ResponseCurve(
        group.name, tuple(u.name for u in group.units[:-1]), np.arange(len(effect)), effect, 0 * effect
    )


def test_curves_go_on_from_what_is_gone():
    network = traced("residual")
    effects = some_effects(network)
    gone = network.group("stem.0").units[:2]
    curves = dict(effects.curves)
    rest = [u.name for u in network.group("stem.0").units[2:-1]]
    steps = np.arange(len(rest) + 1)
    curves["stem.0"] = ResponseCurve("stem.0", tuple(rest), steps, 0.1 * steps, 0 * steps)
    plan = plan_along(network, curves, Budget(macs=0.4), removed=gone, base=0.5)
    assert {u.name for u in gone} <= set(plan.units)
    assert plan.macs <= 0.4 * network.cost().macs
    assert plan.predicted >= 0.5


def test_a_budget_that_holds_already_removes_nothing():
    network = traced("residual")
    for allocation in ("uniform", "global", "curves"):
        plan = allocate(network, some_effects(network), Budget(macs=1.0), allocation=allocation)
        assert plan.units == ()
        assert plan.predicted == 0


@given(seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_flat_stretches_of_a_crooked_curve_are_taken_whole(seed):
    """Behind a bump the curve is low again: the bump is walked over, never stopped on, unless the budget ends there."""
    network = traced("residual")
    rng = np.random.default_rng(seed)
    group = network.group("first.0")
    bump = np.array([0.0, 9.0, 9.0, 0.1, 0.2])
    curves = {g.name: convex_curve(g, rng) for g in network.groups}
    curves[group.name] = ResponseCurve(
        group.name, tuple(u.name for u in group.units[:-1]), np.arange(5), bump, 0 * bump
    )
    plan = plan_along(network, curves, Budget(macs=0.55))
    assert plan.predicted < 9


@given(seed=st.integers(0, 9999), ratio=st.floats(0.3, 0.95))
@settings(max_examples=40, deadline=None)
def test_the_prediction_is_read_off_the_curves_even_where_they_are_crooked(seed, ratio):
    network = traced("residual")
    rng = np.random.default_rng(seed)
    curves = {g.name: convex_curve(g, rng) for g in network.groups}
    curves = {n: dataclasses.replace(c, effect=np.r_[0, rng.permutation(c.effect[1:])]) for n, c in curves.items()}
    plan = plan_along(network, curves, Budget(macs=ratio))
    measured = sum(curves[name].effect[count] for name, count in plan.removed_per_group().items())
    assert plan.predicted == pytest.approx(measured)
