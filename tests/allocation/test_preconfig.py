"""PreConfig: densities above 1 against brute force, and widths of real networks that meet both budgets."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from allocation.made_up import chain
from whyprune.allocation import Budget, Constraints, Space, allocate
from whyprune.allocation.densities import geometric_program, layers, water_filling
from whyprune.allocation.preconfig import WIDEST, wider
from whyprune.criteria import random_scores
from whyprune.errors import InputError
from whyprune.methods import method_named
from whyprune.models import load_model
from whyprune.pipeline.preconfigured import preconfigured
from whyprune.structure.trace import trace

COSTS = np.array([864.0, 36864, 147456, 589824])


def test_layers_that_are_not_at_the_bound_keep_the_same_absolute_cost():
    densities = water_filling([COSTS], [COSTS.sum()], most=4.0)
    assert densities[0] == 4.0
    assert densities @ COSTS == pytest.approx(COSTS.sum())
    free = [k for k in range(4) if densities[k] < 4.0]
    assert len(free) == 2
    assert densities[free[0]] * COSTS[free[0]] == pytest.approx(densities[free[1]] * COSTS[free[1]])
    assert densities[free[0]] > 1 > densities[free[1]]


def test_densities_above_one_are_the_best_of_a_grid():
    costs, limit, most = np.array([1.0, 4.0, 16.0]), 21.0, 3.0
    found = water_filling([costs], [limit], most=most)
    grid = np.array(list(itertools.product(np.linspace(0.05, most, 60), repeat=3)))
    met = grid[grid @ costs <= limit]
    best = np.log(met).sum(axis=1).max()
    assert best <= np.log(found).sum() + 1e-9
    assert np.log(found).sum() <= best + 0.05
    assert found.max() > 1


@pytest.mark.filterwarnings("ignore:Values in x were outside bounds:RuntimeWarning")  # of the other solver
@pytest.mark.parametrize("shares", [(1.0, 1.0), (1.0, 0.6), (0.4, 0.9)])
def test_two_budgets_with_densities_above_one_are_solved_as_well_as_by_a_general_solver(shares):
    a, b = np.array([[9.0, 100.0], [300.0, 800.0], [900.0, 400.0], [2000.0, 150.0]]).T
    limits, most = [shares[0] * a.sum(), shares[1] * b.sum()], 4.0
    found = water_filling([a, b], limits, most=most)
    assert found @ a <= limits[0] * (1 + 1e-6)
    assert found @ b <= limits[1] * (1 + 1e-6)
    general = minimize(
        lambda p: -np.log(p).sum(),
        np.full(4, 0.5 * min(shares)),
        jac=lambda p: -1 / p,
        bounds=[(1e-9, most)] * 4,
        constraints=[
            {"type": "ineq", "fun": lambda p, c=c, m=m: 1 - p @ c / m, "jac": lambda _, c=c, m=m: -c / m}
            for c, m in zip((a, b), limits, strict=True)
        ],
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    assert np.log(found).sum() == pytest.approx(-general.fun, abs=1e-4)


WIDTHS = (3, 6, 4)


def test_the_program_is_as_good_as_the_best_of_all_widths_up_to_twice_as_wide():
    pytest.importorskip("cvxpy", reason="the extra `search` is not installed")
    network, budget = chain(WIDTHS), Budget(macs=1.0, params=0.9)
    space, dense = Space(network), network.cost()
    groups = space.bounds.groups
    found, names = layers(space), list(groups)
    sides = [sum((p, a) in layer.axes for layer in found for p, a, _ in groups[n].axes) for n in names]
    shares = geometric_program(space, found, budget.limits(dense), dict.fromkeys(names, 2.0))
    assert max(shares.values()) > 1
    objective = sum(s * np.log(shares[n]) for n, s in zip(names, sides, strict=True))
    widths, best = [len(groups[n].units) for n in names], -np.inf
    for kept in itertools.product(*(range(1, 2 * w + 1) for w in widths)):
        gone = {groups[n]: w - k for n, w, k in zip(names, widths, kept, strict=True)}
        if budget.met_by(network.cost.of_groups(gone), dense):
            best = max(best, sum(s * np.log(k / w) for s, k, w in zip(sides, kept, widths, strict=True)))
    assert best <= objective + 1e-6
    assert objective <= best + 0.5  # whole units leave little on the table


def made(name):
    torch.manual_seed(0)
    shape = {"digits_cnn": (1, 8, 8)}.get(name, (3, 32, 32))
    model = load_model(name, num_classes=10, image_shape=shape)
    return model, torch.zeros(2, *shape)


@pytest.mark.parametrize("name", ["digits_cnn", "resnet20"])
def test_networks_are_laid_out_anew_within_both_budgets(name):
    pytest.importorskip("cvxpy", reason="the extra `search` is not installed")
    model, inputs = made(name)
    network, budget = trace(model, inputs), Budget(macs=1.0, params=0.8)
    wide = preconfigured(
        network, budget, method_named("preconfig"), Constraints(), lambda m: trace(m, inputs), fresh=True, seed=0
    )
    assert wide.widening is not None
    assert wide.notes[-1].startswith("The program would widen")
    plan = allocate(wide.network, random_scores(wide.network), wide.budget, allocation="preconfig")
    cost, dense = wide.network.cost(wide.network.select(plan.units)), network.cost()
    assert cost.macs <= dense.macs
    assert cost.params <= 0.8 * dense.params
    assert min(cost.macs / dense.macs, cost.params / dense.params / 0.8) > 0.85
    before, gone = {g.name: len(g.units) for g in network.groups}, plan.removed_per_group()
    after = {g.name: len(g.units) - gone.get(g.name, 0) for g in wide.network.groups}
    assert any(after[n] > before[n] for n in before)
    assert any(after[n] < before[n] for n in before)
    assert all(after[n] <= WIDEST * before[n] for n in before)


def test_one_budget_holds_the_other_cost_at_what_it_was_and_others_are_refused():
    pytest.importorskip("cvxpy", reason="the extra `search` is not installed")
    network = chain((6, 12, 8))
    space, able = Space(network), [g.name for g in network.groups]
    wish = wider(space, Budget(macs=0.5), able)
    assert wish.budget == Budget(macs=0.5 * network.cost().macs, params=network.cost().params)
    assert not set(wider(space, Budget(params=1.0), []).more)
    multiples = wider(Space(network, Constraints(round_to=4)), Budget(params=1.0), able).more
    assert multiples
    assert all((len(network.group(name).units) + count) % 4 == 0 for name, count in multiples.items())
    with pytest.raises(InputError, match="precrop knows budgets of macs and params, not of 'bytes'"):
        wider(space, Budget(bytes=0.5), able)
