"""HALP's knapsack against all choices there are, and on staircases of cost."""

from dataclasses import dataclass
from functools import cache
from itertools import product
from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from allocation.made_up import some_effects
from whyprune.allocation import ALLOCATORS, Budget, Constraints, Space, allocate, along_scores
from whyprune.allocation.multiple_choice import front
from whyprune.structure.trace import trace

CLASSES = st.lists(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=5), min_size=1, max_size=5
)


@settings(max_examples=60)
@given(CLASSES)
def test_a_front_holds_the_best_choice_within_any_cost(classes):
    arrays = [tuple(np.array(column, dtype=float) for column in zip(*pairs, strict=True)) for pairs in classes]
    found = front(arrays)
    sums = [np.sum(choice, axis=0) for choice in product(*classes)]
    for limit in sorted({cost for cost, _ in sums}):
        best = max(value for cost, value in sums if cost <= limit)
        place = np.searchsorted(found.costs, limit, side="right") - 1
        assert found.values[place] == best
        picked = [pairs[k] for pairs, k in zip(classes, found.choices(place), strict=True)]
        assert tuple(np.sum(picked, axis=0)) == (found.costs[place], found.values[place])
    assert (np.diff(found.costs) > 0).all()
    assert (np.diff(found.values) > 0).all()


def test_a_thinned_front_is_worse_by_no_more_than_a_step_of_cost_for_each_class():
    rng = np.random.default_rng(0)
    classes = [(np.cumsum(rng.random(9)), np.cumsum(rng.random(9))) for _ in range(6)]
    whole, thin = front(classes, most=10**7), front(classes, most=60)
    assert len(thin.costs) <= 61 < len(whole.costs)
    allowed = 6 * (whole.costs[-1] - whole.costs[0]) / 60
    for limit in np.linspace(whole.costs[0] + allowed, whole.costs[-1], 50):
        reachable = whole.values[np.searchsorted(whole.costs, limit - allowed, side="right") - 1]
        assert thin.values[np.searchsorted(thin.costs, limit, side="right") - 1] >= reachable - 1e-9


class Apart(nn.Module):
    """Layers side by side: what one of them costs does not depend on the others."""

    def __init__(self):
        super().__init__()
        self.ins = nn.ModuleList(nn.Conv2d(2, width, 1) for width in (5, 7, 6))
        self.outs = nn.ModuleList(
            nn.Conv2d(width, 2, size, padding=size // 2) for width, size in ((5, 3), (7, 1), (6, 5))
        )

    def forward(self, x):
        return sum(out(into(x).relu()) for into, out in zip(self.ins, self.outs, strict=True)).mean(dim=(2, 3))


@cache
def apart():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return trace(Apart().eval(), torch.zeros(2, 2, 6, 6))


@dataclass(frozen=True)
class Steps:
    """Each group takes time by its width up to the next multiple of its step."""

    groups: dict
    kind: str = "latency"

    def __call__(self, gone):
        return 5.0 + sum(
            each * step * ceil((size - gone.get(home, 0)) / step) for home, size, step, each in self.groups.values()
        )


def stepped(network, steps=(2, 4, 3)):
    rows = zip(network.groups, steps, (1.0, 0.5, 2.0), strict=True)
    return network.priced([Steps({g.name: (g.home, len(g.units), step, each) for g, step, each in rows})])


def kept_most(space, objective, budget):
    """The least importance lost over all widths within the budget."""
    dense, best = space.network.cost(), np.inf
    ends = [range(objective.ends[name] + 1) for name in space.bounds.groups]
    for gone in product(*ends):
        point = dict(zip(space.bounds.groups, gone, strict=True))
        lost = sum(objective.height(name, stop) for name, stop in point.items())
        if lost < best and budget.met_by(space.cost(point), dense):
            best = lost
    return best


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000), ratio=st.floats(0.3, 0.95), kind=st.sampled_from(["macs", "params", "latency"]))
def test_where_costs_add_up_it_keeps_as_much_as_the_best_of_all_widths(seed, ratio, kind):
    network = stepped(apart()) if kind == "latency" else apart()
    space, budget = Space(network), Budget(**{kind: ratio})
    objective = along_scores(space, some_effects(network, seed, curves=False))
    best = kept_most(space, objective, budget)
    if not np.isfinite(best):
        return
    point = ALLOCATORS("halp")(space, objective, budget)
    assert budget.met_by(space.cost(point), network.cost())
    lost = sum(objective.height(name, point[name]) for name in space.bounds.groups)
    assert lost == pytest.approx(best, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("ratio", [0.6, 0.7, 0.85])
def test_on_a_staircase_whole_steps_go(ratio):
    network = stepped(apart())
    for seed in range(5):
        plan = allocate(network, some_effects(network, seed, curves=False), Budget(latency=ratio), allocation="halp")
        for group, step in zip(network.groups, (2, 4, 3), strict=True):
            kept = len(group.units) - plan.removed_per_group().get(group.name, 0)
            assert kept % step == 0 or kept == len(group.units), (group.name, kept)


def test_the_most_important_units_of_a_group_stay():
    network = apart()
    effects = some_effects(network, 3, curves=False, estimand="score")
    scores, plan = effects.by_unit(), allocate(network, effects, Budget(macs=0.5), allocation="halp")
    gone = set(plan.units)
    for group in network.groups:
        out = [scores[u.name] for u in group.units if u.name in gone]
        stay = [scores[u.name] for u in group.units if u.name not in gone]
        assert max(out, default=0.0) <= min(stay)


def test_where_layers_multiply_it_keeps_nearly_as_much_as_the_best_of_all_widths():
    """Costs are products of neighbouring widths there: what one saves depends on the other."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 9, 3, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(9, 7, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 3)]
        network = trace(nn.Sequential(*layers).eval(), torch.zeros(2, 2, 6, 6))
    ratios = []
    for seed, bounds in product(range(8), ({"macs": 0.5}, {"macs": 0.3}, {"macs": 0.6, "params": 0.5})):
        space, budget = Space(network), Budget(**bounds)
        objective = along_scores(space, some_effects(network, seed, curves=False))
        point = ALLOCATORS("halp")(space, objective, budget)
        assert budget.met_by(space.cost(point), network.cost())
        lost = sum(objective.height(name, point[name]) for name in space.bounds.groups)
        ratios.append(lost / kept_most(space, objective, budget))
    assert np.mean(ratios) < 1.05
    assert max(ratios) < 1.35


def test_constraints_hold_on_a_staircase():
    network = stepped(apart())
    constraints = Constraints(round_to=2, min_width=3)
    plan = allocate(
        network, some_effects(network, curves=False), Budget(latency=0.9), allocation="halp", constraints=constraints
    )
    for group in network.groups:
        kept = group.width - plan.removed_per_group().get(group.name, 0)
        assert kept == group.width or (kept % 2 == 0 and kept >= 3)
