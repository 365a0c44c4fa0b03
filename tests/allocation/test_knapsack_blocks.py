"""Plans in which residual blocks may go as a whole, compared with all plans there are."""

from functools import cache
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from allocation.made_up import a_curve, plan_along
from allocation.test_knapsack import GAP, Staircase
from whyprune.allocation import Budget, Space, check_reachable
from whyprune.allocation.constraints import Constraints
from whyprune.errors import BudgetError
from whyprune.structure.network import Network
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace


class Block(nn.Module):
    """A residual block with one inner group, or with two."""

    def __init__(self, *inner):
        super().__init__()
        widths = (4, *inner, 4)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairwise(widths))

    def forward(self, x):
        y = x
        for layer in self.layers:
            y = layer(y).relu()
        return x + y


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 1)
        self.blocks = nn.Sequential(Block(5), Block(3, 3), Block(4))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))


@cache
def network() -> Network:
    torch.manual_seed(0)
    found = trace(Small().eval(), torch.randn(2, 1, 4, 4))
    assert [len(b.groups) for b in found.blocks] == [1, 2, 1]
    return found


def case(seed):
    rng = np.random.default_rng(seed)
    shapes = network().cost.shapes
    axes = [(name, axis) for name, shape in shapes.items() for axis in range(len(shape))]
    steps = {axis: int(rng.choice([1, 2, 3])) for axis in axes}
    net = network().priced([Staircase(shapes, steps, fixed=float(rng.choice([0, 30])))])
    curves = {g.name: a_curve(g, rng) for g in net.groups}
    return net, curves, {b.name: float(rng.gamma(1.0) * rng.choice([0.2, 1, 4])) for b in net.blocks}


def best(net, curves, bypass, limit, kind="latency"):
    """The least effect of all plans: every block as a whole or by its curves, every other group by its curve."""
    found = np.inf
    for whole in product([False, True], repeat=len(net.blocks)):
        gone = [block for block, goes in zip(net.blocks, whole, strict=True) if goes]
        inside = {name for block in gone for name in block.groups}
        rest = [g for g in net.groups if g.name not in inside]
        for counts in product(*(range(int(curves[g.name].removed[-1]) + 1) for g in rest)):
            effect = sum(curves[g.name].effect[n] for g, n in zip(rest, counts, strict=True))
            effect += sum(bypass[block.name] for block in gone)
            if effect < found:
                taken = {g: len(g.units) for g in net.groups if g.name in inside}
                cost = net.cost.of_groups(taken | dict(zip(rest, counts, strict=True)))
                found = effect if getattr(cost, kind) <= limit else found
    return found


def planned(net, curves, bypass, **about):
    return plan_along(net, curves, Budget(**about), blocks=bypass)


@settings(max_examples=8)
@given(st.integers(0, 10_000), st.floats(0.15, 0.95), st.sampled_from(["latency", "macs"]))
def test_the_plan_is_the_best_or_close_to_it(seed, ratio, kind):
    net, curves, bypass = case(seed)
    limit = ratio * getattr(net.cost(), kind)
    optimum = best(net, curves, bypass, limit, kind)
    if not np.isfinite(optimum):
        with pytest.raises(BudgetError):
            planned(net, curves, bypass, **{kind: ratio})
        return
    plan = planned(net, curves, bypass, **{kind: ratio})
    assert getattr(net.cost(net.select(plan.units)), kind) <= limit
    assert plan.predicted <= optimum * (1 + GAP) + 1e-9


def test_most_plans_are_the_best():
    hits = []
    for seed in range(10):
        net, curves, bypass = case(seed)
        plan = planned(net, curves, bypass, latency=0.6)
        hits.append(plan.predicted <= best(net, curves, bypass, 0.6 * net.cost().latency) + 1e-9)
    assert np.mean(hits) >= 0.8


def test_blocks_go_where_that_costs_least_and_stay_where_it_costs_most():
    net, curves, _ = case(0)
    free = planned(net, curves, dict.fromkeys((b.name for b in net.blocks), 0.0), macs=0.7)
    assert free.predicted == 0
    assert free.blocks
    dear = planned(net, curves, dict.fromkeys((b.name for b in net.blocks), 1e6), macs=0.7)
    assert dear.blocks == ()


def test_what_a_plan_predicts_is_the_sum_of_its_parts():
    for seed in range(6):
        net, curves, bypass = case(seed)
        plan = planned(net, curves, bypass, latency=0.5)
        inside = {name for b in net.blocks if b.name in plan.blocks for name in b.groups}
        gone = plan.removed_per_group()
        left = (g.name for g in net.groups if g.name not in inside)
        parts = sum(bypass[name] for name in plan.blocks) + sum(curves[n].effect[gone.get(n, 0)] for n in left)
        assert plan.predicted == pytest.approx(parts)


@pytest.mark.parametrize(
    "constraints",
    [Constraints(min_width={"blocks.1": 2}), Constraints(max_share=0.9), Constraints(min_width=2)],
)
def test_blocks_of_which_something_must_stay_are_kept(constraints):
    net, curves, _ = case(1)
    free = dict.fromkeys((b.name for b in net.blocks), -1.0)
    kept = {"blocks.1"} if "blocks.1" in str(constraints) else {b.name for b in net.blocks}
    plan = plan_along(net, curves, Budget(macs=0.8), blocks=free, constraints=constraints)
    assert not kept & set(plan.blocks)


def test_a_budget_that_only_fewer_blocks_meet_is_reachable_with_them():
    net, curves, bypass = case(2)
    stem = net.group("stem")
    lean = net.cost.of_groups({g: len(g.units) - 1 for g in net.groups}).macs
    without = net.cost.of_groups(
        {g: len(g.units) for b in net.blocks for g in map(net.group, b.groups)} | {stem: len(stem.units) - 1}
    ).macs
    assert without < lean
    with pytest.raises(BudgetError, match="smallest reachable"):
        check_reachable(Space(net), Budget(macs=without))
    check_reachable(Space(net, kinds=("width", "block")), Budget(macs=without))
    plan = planned(net, curves, bypass, macs=without)
    assert set(plan.blocks) == {b.name for b in net.blocks}


def test_a_block_that_is_gone_already_stays_gone_and_is_not_offered_again():
    net, curves, bypass = case(3)
    block = net.blocks[0]
    removed = [u for name in block.groups for u in net.group(name).units]
    state = State(net, remove(net, removed), tuple(removed))
    assert block.name not in Space(state, kinds=("width", "block")).inside
    left = {name: c for name, c in curves.items() if name not in block.groups}
    others = {name: effect for name, effect in bypass.items() if name != block.name}
    plan = plan_along(net, left, Budget(macs=0.5), removed=removed, base=2.0, blocks=others)
    assert block.name in plan.blocks
    assert {u.name for u in removed} <= set(plan.units)
    assert plan.predicted >= 2.0
