"""Densities from the architecture alone: closed form and geometric program against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from allocation.made_up import chain
from structure.networks import traced
from whyprune.allocation import Budget, Constraints, Space, allocate
from whyprune.allocation.densities import geometric_program, layers, water_filling
from whyprune.criteria import random_scores
from whyprune.errors import BudgetError, InputError


def test_every_layer_that_is_not_whole_keeps_the_same_absolute_cost():
    costs = np.array([864.0, 36864, 147456, 589824])
    densities = water_filling([costs], [0.3 * costs.sum()])
    assert densities == pytest.approx([1, 1, 0.660, 0.165], abs=5e-4)
    assert densities @ costs == pytest.approx(0.3 * costs.sum())
    assert densities[2] * costs[2] == pytest.approx(densities[3] * costs[3])


@settings(max_examples=40, deadline=None)
@given(
    costs=st.lists(st.tuples(st.floats(1, 1e6), st.floats(1, 1e6)), min_size=2, max_size=6),
    first=st.floats(0.05, 1.2),
    second=st.floats(0.05, 1.2),
)
def test_two_budgets_are_solved_as_well_as_by_a_general_solver(costs, first, second):
    a, b = np.array(costs).T
    limits = [first * a.sum(), second * b.sum()]
    found = water_filling([a, b], limits)
    assert (found > 0).all()
    assert (found <= 1).all()
    assert found @ a <= limits[0] * (1 + 1e-6)
    assert found @ b <= limits[1] * (1 + 1e-6)
    start = np.full(len(a), 0.9 * min(first, second, 1.0))
    general = minimize(
        lambda p: -np.log(p).sum(),
        start,
        jac=lambda p: -1 / p,
        bounds=[(1e-9, 1)] * len(a),
        constraints=[
            {"type": "ineq", "fun": lambda p: 1 - p @ a / limits[0], "jac": lambda _: -a / limits[0]},
            {"type": "ineq", "fun": lambda p: 1 - p @ b / limits[1], "jac": lambda _: -b / limits[1]},
        ],
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    assert np.log(found).sum() >= -general.fun - 1e-4


WIDTHS = (6, 9, 7)


def test_layers_carry_the_parameters_and_macs_of_their_weights():
    network = chain(WIDTHS)
    found = {layer.name: layer.costs for layer in layers(Space(network))}
    assert found["2.weight"] == {"params": 6 * 9 * 9, "macs": 6 * 9 * 9 * 64}
    assert found["8.weight"] == {"params": 28, "macs": 28}


@pytest.mark.parametrize("budget", [Budget(macs=0.5), Budget(macs=0.6, params=0.4)])
def test_the_geometric_program_is_as_good_as_the_best_of_all_widths(budget):
    """Over all integer widths, none has a larger product of densities than the shares before rounding."""
    pytest.importorskip("cvxpy", reason="the extra `search` is not installed")
    network = chain(WIDTHS)
    space, dense = Space(network), network.cost()
    names, widths = list(space.bounds.groups), [len(g.units) for g in space.bounds.groups.values()]
    found = layers(space)
    sides = [sum((p, a) in layer.axes for layer in found for p, a, _ in space.bounds.groups[n].axes) for n in names]
    shares = geometric_program(space, found, budget.limits(dense))
    objective = sum(s * np.log(shares[n]) for n, s in zip(names, sides, strict=True))
    best = -np.inf
    for kept in itertools.product(*(range(1, w + 1) for w in widths)):
        point = {n: w - k for n, w, k in zip(names, widths, kept, strict=True)}
        if budget.met_by(space.cost(point), dense):
            best = max(best, sum(s * np.log(k / w) for s, k, w in zip(sides, kept, widths, strict=True)))
    assert best <= objective + 1e-6
    assert objective <= best + 0.5  # whole units leave little on the table


@pytest.mark.parametrize("name", ["precrop", "precrop-gp"])
@pytest.mark.parametrize("budget", [Budget(macs=0.5), Budget(params=0.3), Budget(macs=0.6, params=0.6)])
def test_plans_meet_their_budget_and_leave_no_unit_that_fits(name, budget):
    if name == "precrop-gp":
        pytest.importorskip("cvxpy", reason="the extra `search` is not installed")
    for network in (chain((12, 16, 10)), traced("residual"), traced("flatten")):
        plan = allocate(network, random_scores(network), budget, allocation=name)
        gone = network.select(plan.units)
        assert budget.met_by(network.cost(gone), network.cost())
        for group in network.groups:
            own = [u for u in gone if u.group == group.name]
            if own:
                fewer = network.cost([u for u in gone if u is not own[0]])
                assert not budget.met_by(fewer, network.cost())


def test_multiples_hold_and_a_budget_of_latency_is_refused():
    network = chain((16, 24, 16))
    plan = allocate(
        network, random_scores(network), Budget(macs=0.5), allocation="precrop", constraints=Constraints(round_to=8)
    )
    removed = plan.removed_per_group()
    assert all(count % 8 == 0 for count in removed.values())
    with pytest.raises(InputError, match="precrop knows budgets of macs and params, not of 'bytes'"):
        allocate(network, random_scores(network), Budget(bytes=0.5), allocation="precrop")
    with pytest.raises(BudgetError, match="smallest reachable"):
        allocate(network, random_scores(network), Budget(macs=1e-6), allocation="precrop")
