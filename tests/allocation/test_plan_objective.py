"""What a point does: predicted from curves or effects, or measured on the network, once for each set of units."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny
from allocation.made_up import plan_along, some_effects
from whyprune.allocation import ALLOCATORS, Budget, Space, allocate, along_curves, along_scores
from whyprune.allocation.evaluator import MeasuredEffects
from whyprune.allocation.greedy import greedy
from whyprune.data.batches import as_batches
from whyprune.effects.joint import joint_effect
from whyprune.errors import BudgetError, InputError
from whyprune.repair import repair
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace
from whyprune.testing import check_allocator


@pytest.fixture(scope="module")
def network():
    return trace(tiny.trained(), tiny.digits()[0][:2])


def images(first, last):
    return list(as_batches(tiny.batches(first, last), 1))


def test_along_curves_a_point_is_predicted_by_its_heights(network):
    effects, space = some_effects(network), Space(network)
    objective = along_curves(space, effects.curves, base=0.5)
    point = {g.name: 2 for g in network.groups}
    assert objective.predicted(point) == pytest.approx(0.5 + sum(c.effect[2] for c in effects.curves.values()))
    first = network.groups[0].name
    assert objective.units({first: 2}) == effects.curves[first].order[:2]


def test_along_scores_a_point_is_predicted_by_the_sum_of_its_units(network):
    effects, space = some_effects(network, curves=False), Space(network)
    effects = replace(effects, mean=effects.mean - 0.5)  # some effects are below zero
    objective = along_scores(space, effects)
    point = {g.name: 3 for g in network.groups}
    assert objective.predicted(point) == pytest.approx(sum(effects[name] for name in objective.units(point)))


def test_a_measured_point_is_the_joint_effect_and_is_measured_once(network):
    state, space = State.of(network), Space(network)
    evaluator = MeasuredEffects(state, images(0, 64))
    objective = along_scores(space, some_effects(network), evaluator=evaluator)
    point = {g.name: 1 for g in network.groups}
    found = objective.measured(point)
    pruned = remove(state, objective.units(point))
    assert found == pytest.approx(joint_effect(pruned, images(0, 64)).mean, rel=1e-5)
    spent = evaluator.forward_passes
    share = network.cost(pruned.removed).macs / network.cost().macs
    assert spent == pytest.approx(64 * (1 + share))
    assert objective.measured(dict(point)) == found
    assert evaluator.forward_passes == spent


def test_a_measured_point_is_repaired_where_there_are_images_to_repair_with(network):
    state = State.of(network)
    units = [g.units[0].name for g in network.groups]
    evaluator = MeasuredEffects(state, images(0, 64), fit=images(64, 192), seed=3)
    by_hand = repair(remove(state, units), images(64, 192), seed=3)
    assert evaluator(units) == pytest.approx(joint_effect(by_hand, images(0, 64)).mean, rel=1e-5)
    assert evaluator.forward_passes > 64 + 128


def test_passes_that_are_spent_end_in_a_message(network):
    evaluator = MeasuredEffects(State.of(network), images(0, 64), most_passes=150)
    evaluator([network.units[0].name])
    with pytest.raises(BudgetError, match="150 forward passes are spent"):
        evaluator([network.units[1].name])


def test_without_images_nothing_can_be_measured(network):
    objective = along_scores(Space(network), some_effects(network))
    with pytest.raises(InputError, match="no images were given"):
        objective.measured({})


@pytest.mark.parametrize("name", list(ALLOCATORS))
def test_every_allocator_keeps_the_contract(name):
    check_allocator(ALLOCATORS(name))


def test_a_contract_that_is_broken_is_told():
    def idle(space, objective, budget, *, seed=0, progress=False):
        return dict(space.start)

    with pytest.raises(AssertionError, match="the point costs more"):
        check_allocator(idle)

    def fickle(space, objective, budget, *, seed=0, progress=False):
        fickle.calls += 1
        return ALLOCATORS("uniform" if fickle.calls % 2 else "global")(space, objective, budget, seed=seed)

    fickle.calls = 0
    with pytest.raises(AssertionError, match="another point"):
        check_allocator(fickle)


def test_one_search_for_all_budgets_predicts_no_more_than_the_greedy_walk(network):
    """Also for MACs, where allowing blocks used to switch the search; and most plans are better."""
    better = 0
    for seed in range(12):
        effects = some_effects(network, seed)
        for ratio in (0.4, 0.6, 0.8):
            found = allocate(network, effects, Budget(macs=ratio), allocation="curves")
            walked = plan_along(network, effects.curves, Budget(macs=ratio), allocation=greedy)
            assert found.predicted <= walked.predicted + 1e-9
            better += found.predicted < walked.predicted - 1e-9
    assert better >= 12


def test_between_measured_widths_units_are_given_back_one_by_one(network):
    """Curves are measured at a few widths; where the budget leaves room, no single unit goes that could stay."""
    for seed in range(6):
        effects = some_effects(network, seed)
        coarse = {name: at_few_widths(curve) for name, curve in effects.curves.items()}
        plan = plan_along(network, coarse, Budget(macs=0.55))
        gone, space = plan.removed_per_group(), Space(network)
        point = {g.name: gone.get(g.name, 0) for g in network.groups}
        for name, count in point.items():
            curve = coarse[name]
            rises = count and np.interp(count, curve.removed, curve.effect) > np.interp(
                count - 1, curve.removed, curve.effect
            )
            assert not rises or space.cost({**point, name: count - 1}).macs > 0.55 * network.cost().macs


def at_few_widths(curve):
    places = np.unique([0, len(curve.order) // 2, len(curve.order)])
    return replace(curve, removed=curve.removed[places], effect=curve.effect[places])


def test_an_allocator_of_ones_own_takes_the_place_of_a_name(network):
    effects = some_effects(network, curves=False)

    def first_units(space, objective, budget, *, seed=0, progress=False):
        """Takes the first unit of every group."""
        return dict.fromkeys(space.bounds.groups, 1)

    plan = allocate(network, effects, Budget(macs=0.99), allocation=first_units)
    assert len(plan.units) == len(network.groups)
    with pytest.raises(InputError, match="needs response curves"):
        allocate(network, effects, Budget(macs=0.9), allocation="curves")


def test_plans_go_on_from_a_network_that_is_pruned_already(network):
    state = remove(State.of(network), [g.units[0] for g in network.groups])
    effects = some_effects(network, curves=False).only([u.name for u in state.units])
    for allocation in ("uniform", "global", "savings"):
        plan = allocate(state, effects, Budget(macs=0.5), allocation=allocation, base=0.25)
        assert {u.name for u in state.removed} <= set(plan.units)
        fresh = set(plan.units) - {u.name for u in state.removed}
        assert plan.predicted == pytest.approx(0.25 + sum(effects[name] for name in fresh))
        assert torch.is_tensor(next(remove(state, plan.units).model.parameters()))
