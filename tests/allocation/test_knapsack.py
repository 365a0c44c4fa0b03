"""Widths under staircases of cost, compared with all plans there are."""

from dataclasses import dataclass
from functools import cache
from itertools import product
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from allocation.made_up import some_effects
from whyprune.allocation import Budget, allocate
from whyprune.allocation.constraints import Constraints
from whyprune.errors import BudgetError
from whyprune.structure.memory import peak_memory
from whyprune.structure.trace import trace

GAP = 0.02
"""The largest share by which the plan's effect may be above that of the best plan; most plans are the best."""


@dataclass(frozen=True)
class Staircase:
    """Every layer takes its inputs times its outputs, each up to the next multiple of its step, and a fixed time."""

    shapes: dict
    steps: dict
    fixed: float = 0.0
    kind: str = "latency"

    def __call__(self, gone):
        return self.fixed + sum(
            np.prod([self.up(name, axis, size - gone.get((name, axis), 0)) for axis, size in enumerate(shape[:2])])
            for name, shape in self.shapes.items()
            if len(shape) > 1
        )

    def up(self, name, axis, size):
        step = self.steps.get((name, axis), 4)
        return step * ceil(size / step)


@cache
def network():
    return trace(tiny.trained(), tiny.digits()[0][:2])


def priced(seed, fixed=(0, 200)):
    rng = np.random.default_rng(seed)
    shapes = network().cost.shapes
    axes = [(name, axis) for name, shape in shapes.items() for axis in range(len(shape))]
    steps = {axis: int(rng.choice([1, 3, 4, 8])) for axis in axes}
    return network().priced([Staircase(shapes, steps, fixed=float(rng.choice(fixed)))])


def best(net, effects, limit):
    """The least effect of all counts along the curves that meet the limit."""
    curves = [effects.curves[g.name] for g in net.groups]
    found = np.inf
    for counts in product(*(range(int(c.removed[-1]) + 1) for c in curves)):
        effect = sum(c.effect[n] for c, n in zip(curves, counts, strict=True))
        if effect < found and net.cost.of_groups(dict(zip(net.groups, counts, strict=True))).latency <= limit:
            found = effect
    return found


@settings(max_examples=8)
@given(st.integers(0, 10_000), st.floats(0.35, 0.95))
def test_the_plan_is_the_best_or_close_to_it(seed, ratio):
    net, effects = priced(seed), some_effects(network(), seed)
    limit = ratio * net.cost().latency
    optimum = best(net, effects, limit)
    if not np.isfinite(optimum):
        with pytest.raises(BudgetError):
            allocate(net, effects, Budget(latency=ratio), allocation="curves")
        return
    plan = allocate(net, effects, Budget(latency=ratio), allocation="curves")
    assert net.cost(net.select(plan.units)).latency <= limit
    assert plan.predicted <= optimum * (1 + GAP) + 1e-9


def test_most_plans_are_the_best():
    hits = []
    for seed in range(10):
        net, effects = priced(seed), some_effects(network(), seed)
        plan = allocate(net, effects, Budget(latency=0.7), allocation="curves")
        hits.append(plan.predicted <= best(net, effects, 0.7 * net.cost().latency) + 1e-9)
    assert np.mean(hits) >= 0.8


@pytest.mark.parametrize("allocation", ["uniform", "global", "curves", "savings"])
@pytest.mark.parametrize("ratio", [0.5, 0.8])
def test_every_allocation_meets_budgets_on_staircases(allocation, ratio):
    for seed in range(3):
        net, effects = priced(seed, fixed=(0,)), some_effects(network(), seed)
        constraints = Constraints(stops={g.name: 4 for g in net.groups})
        for bounds in ({"latency": ratio}, {"latency": ratio, "macs": ratio, "params": 0.9}):
            budget = Budget(**bounds)
            plan = allocate(net, effects, budget, allocation=allocation, constraints=constraints)
            cost = net.cost(net.select(plan.units))
            assert budget.met_by(cost, net.cost())
            for group in net.groups:
                assert (group.width - plan.removed_per_group().get(group.name, 0)) % 4 == 0 or not (
                    plan.removed_per_group().get(group.name, 0)
                )


@pytest.mark.parametrize("allocation", ["uniform", "global", "curves", "savings"])
def test_memory_is_bounded_although_one_group_alone_does_not_lower_it(allocation):
    net = network().priced([peak_memory(network(), 8)])
    for ratio in (0.6, 0.8):
        plan = allocate(net, some_effects(net), Budget(memory=ratio), allocation=allocation)
        assert net.cost(net.select(plan.units)).memory <= ratio * net.cost().memory


def test_an_unreachable_latency_says_what_can_be_reached():
    net = network().priced([Staircase(network().cost.shapes, {}, fixed=1e6)])
    with pytest.raises(BudgetError, match=r"smallest reachable ratio is 0\.99"):
        allocate(net, some_effects(net), Budget(latency=0.5), allocation="curves")


def test_a_device_on_which_narrow_layers_take_longer_is_no_obstacle():
    """Below half its width every layer is slow: what can be reached is found at half, not at one channel."""

    @dataclass(frozen=True)
    class Narrow(Staircase):
        def up(self, name, axis, size):
            return size if size >= self.shapes[name][axis] / 2 else 4 * self.shapes[name][axis]

    net = network().priced([Narrow(network().cost.shapes, {})])
    plan = allocate(net, some_effects(net), Budget(latency=0.5), allocation="curves")
    assert net.cost(net.select(plan.units)).latency <= 0.5 * net.cost().latency
    with pytest.raises(BudgetError, match="smallest reachable ratio is 0"):
        allocate(net, some_effects(net), Budget(latency=0.1), allocation="curves")
