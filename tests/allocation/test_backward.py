"""Going backward on planted landscapes of harm: the order of groups, the bound on each, and the budget."""

import math
from itertools import pairwise

import pytest

from allocation.test_searches import Landscape, network
from whyprune.allocation import ALLOCATORS, Budget, Constraints, Space, along_scores
from whyprune.allocation.backward import Backward, smallest_delta
from whyprune.criteria import random_scores
from whyprune.errors import BudgetError, InputError

NAMES = ["0", "2", "4"]


def case(weights, constraints=None):
    traced = network()
    space, landscape = Space(traced, constraints), Landscape(traced, weights)
    objective = along_scores(space, random_scores(traced), evaluator=landscape)
    return space, objective, landscape


def ways(weights, ratio, **about):
    space, objective, landscape = case(weights)
    order = [g.name for g in reversed(space.network.groups_as_run)]
    return Backward(space.bounded(objective.ends), objective, Budget(macs=ratio), order, **about), landscape


def test_groups_are_gone_through_from_the_last_to_the_first():
    found, landscape = ways((1.0, 1.0, 1.0), 0.3)
    assert found.order == NAMES[::-1]
    found.way(0.05)
    touched = [{unit.split(":")[0] for unit in units} for units in landscape.asked]
    assert touched[0] == set()
    assert all(one <= other for one, other in pairwise(touched))
    assert [group for group in NAMES[::-1] if any(group in one for one in touched)] == NAMES[::-1][: len(touched[-1])]


def test_the_allocation_begins_with_the_last_group():
    space, objective, landscape = case((1.0, 1.0, 1.0))
    ALLOCATORS("backward")(space, objective, Budget(macs=0.5))
    first = next(units for units in landscape.asked if units)
    assert {unit.split(":")[0] for unit in first} == {"4"}


@pytest.mark.parametrize("delta", [0.01, 0.1, 0.3, 0.7])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (2.0, 0.5, 1.0)])
def test_each_deletion_is_the_largest_of_eight_parts_within_delta(weights, delta):
    found, landscape = ways(weights, 0.5)
    point = {"0": 0, "2": 0, "4": 3}
    before = landscape.of([0, 0, 3])
    for place, (name, size) in enumerate({"0": 10, "2": 12}.items()):
        stops = found._stops(point, name)
        assert stops[0] == 0
        assert stops[-1] == size - 1
        assert len(stops) == 9
        allowed = [stop for stop in stops if weights[place] * (stop / size) ** 2 <= delta]
        assert found._farthest(point, name, stops, before + delta) == allowed[-1]


@pytest.mark.parametrize("ratio", [0.8, 0.5, 0.3])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.2, 1.0, 3.0), (3.0, 1.0, 0.2)])
def test_no_deletion_does_more_harm_than_delta_and_the_next_smaller_delta_misses_the_budget(weights, ratio):
    found, landscape = ways(weights, ratio)
    point = smallest_delta(found)
    space = found.space
    assert found.budget.met_by(space.cost(point), space.network.cost())
    delta = found.delta
    assert max(after - before for before, after in found.harms.values()) <= delta
    gone = dict(space.start)
    for name in found.order:
        before = landscape.of([gone[n] for n in NAMES])
        gone[name] = point[name]
        assert landscape.of([gone[n] for n in NAMES]) - before <= delta + 1e-12
    assert found.way(delta) == point
    assert found.way(delta / 1.04) is None  # 10^4 to the power of 2^-8 is 1.037


def test_what_lies_in_front_stays_whole_once_the_budget_is_met():
    found, _ = ways((5.0, 5.0, 1e-4), 0.85)
    point = smallest_delta(found)
    assert point["0"] == point["2"] == 0 < point["4"]
    spare = {**point, "4": point["4"] - 1}
    assert not found.budget.met_by(found.space.cost(spare), found.space.network.cost())


def test_a_budget_that_no_delta_meets_takes_the_last_groups_first():
    found, _ = ways((100.0, 100.0, 100.0), 0.4)
    point = smallest_delta(found)
    assert found.budget.met_by(found.space.cost(point), found.space.network.cost())
    assert point == found.way(math.inf)
    assert point["4"] >= point["2"] * 0.7


@pytest.mark.parametrize("plans", [1, 7, 30])
def test_it_measures_no_more_plans_than_it_may(plans):
    found, landscape = ways((1.0, 2.0, 1.0), 0.5, plans=plans)
    point = smallest_delta(found)
    assert found.budget.met_by(found.space.cost(point), found.space.network.cost())
    assert len(set(landscape.asked)) <= plans


def test_multiples_hold_and_what_was_decided_stays():
    space, objective, _ = case((1.0, 1.0, 1.0), Constraints(round_to=2))
    point = ALLOCATORS("backward")(space, objective, Budget(macs=0.6))
    assert all(stop % 2 == 0 for stop in point.values())
    fixed = space.bounded({"4": 0})
    point = ALLOCATORS("backward")(fixed, objective, Budget(macs=0.6))
    assert point["4"] == 0
    assert Budget(macs=0.6).met_by(space.cost(point), space.network.cost())


def test_where_the_budget_is_met_already_nothing_goes():
    found, _ = ways((1.0, 1.0, 1.0), 1.0)
    assert smallest_delta(found) == found.space.start


def test_it_says_what_it_lacks():
    traced = network()
    space = Space(traced)
    with pytest.raises(InputError, match="give images"):
        ALLOCATORS("backward")(space, along_scores(space, random_scores(traced)), Budget(macs=0.5))
    with pytest.raises(BudgetError, match="smallest reachable"):
        ALLOCATORS("backward")(*case((1.0, 1.0, 1.0))[:2], Budget(macs=0.001))
