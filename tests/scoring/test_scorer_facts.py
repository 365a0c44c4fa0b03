"""What facts say of units in another order, of scaled weights and of copies is tried out, and a false word is told."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from whyprune.data.batches import Batch
from whyprune.effects.effects import from_scores
from whyprune.scoring.contract import NamedScorer, Question, ScorerFacts
from whyprune.scoring.registry import SCORERS
from whyprune.structure.state import State
from whyprune.structure.trace import trace
from whyprune.testing import check_scorer, planted, variants

CRITERIA = [name for name in SCORERS.places if SCORERS(name).facts.kind == "criterion"]


def claimed(name, **facts):
    """A scorer of the library under facts that it does not keep."""
    known = SCORERS(name)
    return replace(known, facts=replace(known.facts, **facts))


def by_place(state, batches, question):
    """Scores a unit by where it stands."""
    chosen = state.units if question.units is None else state.select(question.units)
    return from_scores(chosen, [float(u.index) for u in chosen], method="by place", forward_passes=0.0)


def test_the_networks_written_in_another_way_compute_the_same():
    base, (reordered, was), rescaled = planted.case(1), variants.reordered(), variants.rescaled()
    with torch.no_grad():
        expected = base.network.model(base.images)
        torch.testing.assert_close(reordered.network.model(base.images), expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(rescaled.network.model(base.images), expected)
    for unit in reordered.network.units:
        group, index = unit.group, int(was[unit.name].partition(":")[2])
        layer = getattr(base.network.model, group), getattr(reordered.network.model, group)
        assert torch.equal(layer[1].bias[unit.index], layer[0].bias[index])
    assert any(name != old for name, old in was.items())


@pytest.mark.parametrize("name", [*SCORERS])
def test_every_scorer_says_what_scaling_does(name):
    assert SCORERS(name).facts.scaling


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (claimed("magnitude-l2", scaling="invariant"), "invariant when a layer is scaled"),
        (claimed("magnitude-l2", scaling="proportional"), "proportional when a layer is scaled"),
        (claimed("activation-variance", scaling="invariant"), "invariant when a layer is scaled"),
        (claimed("exact", duplicates="one-first"), "of two copies one goes first"),
        (claimed("filter-similarity", duplicates="alike"), "another order"),
        (claimed("random", drawn=False), "say drawn=True"),
        (NamedScorer("placed", ScorerFacts("criterion", "", "", "", "", images=False), by_place), "say drawn=True"),
    ],
)
def test_a_fact_that_does_not_hold_is_told(scorer, message):
    with pytest.raises(AssertionError, match=message):
        check_scorer(scorer)


def test_of_a_function_that_says_nothing_nothing_is_checked():
    def by_place_but_for_the_dead(state, batches, question):
        found = by_place(state, batches, question)
        dead = np.array([name == planted.case(1).unit(planted.DEAD) for name in found.units])
        given = tuple(unit.name for unit in state.removed)
        return replace(found, mean=np.where(dead, -1.0, found.mean), forward_passes=1.0, given=given)

    check_scorer(by_place_but_for_the_dead)


@pytest.fixture(scope="module")
def scaled_pair():
    """A network with copies of another norm, and one of the same function, 16 moved from readers to the first layer."""
    images, traced = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(0)), []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        model = nn.Sequential(
            nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Conv2d(24, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        ).eval()  # fmt: skip
        model[0].weight[16:] = model[0].weight[8:16]
        for factor in (1.0, 16.0):
            scaled = copy.deepcopy(model)
            scaled[0].weight.mul_(factor)
            scaled[0].bias.mul_(factor)
            scaled[2].weight.div_(factor)
            traced.append(trace(scaled, images[:2]))
    return traced, Batch((images,), {})


@pytest.mark.parametrize("name", CRITERIA)
def test_the_word_on_scaling_is_the_strongest_that_holds(name, scaled_pair):
    networks, batch = scaled_pair
    found = [SCORERS(name)(State.of(network), [batch], Question()) for network in networks]
    before, after = (f.mean[np.array(f.groups) == "0"] for f in found)
    same = np.allclose(before, after, rtol=1e-3, atol=1e-9)
    order = np.array_equal(np.argsort(before, kind="stable"), np.argsort(after, kind="stable"))
    assert same == (SCORERS(name).facts.scaling == "invariant")
    assert order == (SCORERS(name).facts.scaling != "dependent")
