"""Every scorer on what is small, empty or broken: an answer or one message, nothing else and nothing silent."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from whyprune.allocation import ALLOCATORS, Budget, allocate
from whyprune.allocation.evaluator import MeasuredEffects
from whyprune.criteria import magnitude
from whyprune.criteria.feature_density import NEVER
from whyprune.data.batches import Batch
from whyprune.errors import BudgetError, InputError
from whyprune.scoring.contract import Question, scorer
from whyprune.scoring.registry import SCORERS
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace
from whyprune.testing.allocators import made_up_effects

NAMES = list(SCORERS.places)
LABELS = torch.arange(24) % 3


def narrow(width):
    """(B, 3, 6, 6) to three logits, through a group of `width` units, one channel, and a group of three."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = (nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 1, 3, padding=1))
        rest = (nn.Conv2d(1, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
        return nn.Sequential(*layers, nn.Sigmoid(), *rest).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(24, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def one_channel(images):
    return trace(narrow(2), images[:2])


@pytest.fixture(scope="module")
def broken(images):
    """A network whose weights are numbers and whose activations are none: a variance is below zero."""
    network = trace(narrow(3), images[:2])
    model = copy.deepcopy(network.model)
    model[1].running_var[1] = -1.0
    return trace(model, images[:2])


def asked(name, network, images):
    return SCORERS(name)(network, [Batch((images,), {}, LABELS)], Question())


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_of_one_channel_is_kept_and_a_group_that_has_one_unit_left_is_judged(name, one_channel, images):
    """The one channel is no unit; of the group of two units one is gone already."""
    assert [len(group.units) for group in one_channel.groups] == [2, 3]
    state = remove(State.of(one_channel), [one_channel.groups[0].units[1]])
    for start in (State.of(one_channel), state):
        found = asked(name, start, images)
        assert found.units == tuple(unit.name for unit in start.units)
        assert np.isfinite(found.mean).all()


@pytest.mark.parametrize("name", list(ALLOCATORS.places))
def test_a_group_that_has_one_unit_left_keeps_it_and_the_budget_is_met_elsewhere(name, one_channel, images):
    alone, other = one_channel.groups
    state = remove(State.of(one_channel), [alone.units[1]])
    cost, dense = one_channel.cost([alone.units[1], other.units[0]]), one_channel.cost()
    evaluator = MeasuredEffects(state, [Batch((images,), {})])
    about = {"allocation": name, "evaluator": evaluator}
    plan = allocate(state, made_up_effects(state), Budget(macs=cost.macs / dense.macs), **about)
    assert alone.units[0].name not in plan.units
    assert plan.removed_per_group() == {alone.name: 1, other.name: 1}
    with pytest.raises(BudgetError, match="the smallest reachable ratio is"):
        allocate(state, made_up_effects(state), Budget(macs=0.01), **about)


@pytest.mark.parametrize("name", [name for name in NAMES if SCORERS(name).facts.images])
def test_activations_that_are_no_numbers_are_one_message(name, broken, images):
    with pytest.raises(InputError, match=r"NaN|no finite number"):
        asked(name, broken, images)


def test_scores_that_are_no_numbers_are_refused_whoever_gives_them(one_channel, images):
    @scorer("broken", kind="criterion", summary="", estimand="score", cost="", guarantee="")
    def gives_nan(state, batches, question):
        found = SCORERS("magnitude-l2")(state, batches, Question())
        found.mean[2] = np.nan
        return found

    with pytest.raises(InputError, match="scorer 'broken' gives 1 of 5 units no finite number, such as '5:0'"):
        gives_nan(one_channel, [Batch((images,), {})], Question())


def test_weights_that_are_no_numbers_are_refused_by_the_trace(images):
    model = narrow(3)
    with torch.no_grad():
        model[3].weight[0, 1] = float("nan")
    with pytest.raises(InputError, match=r"parameter 3\.weight holds NaN"):
        trace(model, images[:2])


def test_a_network_without_units_says_where_to_look(images):
    model = nn.Sequential(nn.Conv2d(3, 1, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3))
    network = trace(model.eval(), images[:2])
    for name in NAMES:
        with pytest.raises(InputError, match=r"there is no unit to measure: see network\.refusals"):
            asked(name, network, images)


def test_where_dbscan_finds_only_noise_every_map_is_distinct(images):
    """No epsilon merges any; the smaller norms go first, and all groups give the same share."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 3))
        network = trace(model.eval(), images[:2])  # four maps are too few for a cluster of five
    found, norms = asked("feature-density", network, images), magnitude(network, order=1)
    np.testing.assert_allclose(found.mean, NEVER, rtol=1e-8)
    half = network.cost([unit for group in network.groups for unit in group.units[:2]]).macs / network.cost().macs
    plan = allocate(network, found, Budget(macs=half), allocation="global")
    assert plan.removed_per_group() == {"0": 2, "2": 2}
    for group in network.groups:
        kept = [norms[unit] for unit in group.units if unit.name not in plan.units]
        assert max(norms[unit] for unit in group.units if unit.name in plan.units) < min(kept)
