"""Measuring where the decision is open: the right units go, intervals hold, and it is cheaper than measuring all."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from structure.networks import randomised
from tiny import digits, trained
from whyprune.causal.adaptive.estimator import Race, adaptive, race
from whyprune.causal.exact import exact_effects
from whyprune.effects.outcomes import CrossEntropy, LogitShift
from whyprune.errors import InputError
from whyprune.scoring.contract import Question
from whyprune.structure.trace import trace
from whyprune.testing import check_scorer, planted

POOL = slice(1000, 1600)


@cache
def network():
    return trace(trained(), digits()[0][:2])


class Known(LogitShift):
    """The outcome with the scale of the whole pool, whichever images it is fitted to."""

    def fit(self, dense):
        return self


@cache
def outcome():
    with torch.no_grad():
        return Known(LogitShift().fit(trained()(digits()[0][POOL])).scale)


@cache
def truth():
    return exact_effects(network(), [digits()[0][POOL]], outcome=outcome()).mean


def drawn(count, seed):
    images = digits()[0][POOL]
    return images[torch.from_numpy(np.random.default_rng(seed).integers(0, len(images), count))]


@pytest.mark.parametrize(("least", "prescreen"), [(64, False), (256, False), (64, True)])
def test_intervals_cover_the_single_effect_as_often_as_they_say(least, prescreen):
    """Of every unit, however early it was settled; images are drawn anew from the pool whose effects are known."""
    hits = []
    for seed in range(20):
        options = Race(least=least, prescreen=prescreen, tolerance=0.02, seed=seed)
        found = race(network(), [drawn(256, seed)], options, Question(outcome=outcome())).effects
        low, high = found.interval
        hits.append((low <= truth()) & (truth() <= high))
    assert 0.92 <= np.mean(hits) <= 0.98
    assert np.mean(hits, axis=0).min() >= 0.7  # 20 draws


def test_a_settled_decision_is_right():
    """Who goes is below the boundary, but for the tolerance, in all runs but one in twenty."""
    tolerance, remove, right, settled = 0.2, 10, [], []
    ranked = np.sort(truth())
    for seed in range(20):
        options = Race(remove=remove, tolerance=tolerance, least=64, seed=seed)
        verdict = race(network(), [drawn(1000, seed)], options, Question(outcome=outcome()))
        settled.append(verdict.settled)
        goes = np.isin(verdict.effects.units, verdict.goes)
        assert goes.sum() == remove
        reach = truth()[goes].max() <= ranked[remove] * (1 + tolerance)
        right.append(not verdict.settled or (reach and truth()[~goes].min() >= ranked[remove - 1] * (1 - tolerance)))
    assert np.mean(settled) > 0.5
    assert sum(right) >= 19


def test_it_measures_most_where_the_decision_is_open():
    verdict = race(network(), [drawn(1024, 0)], Race(remove=10, least=64, tolerance=0.05), Question(outcome=outcome()))
    boundary = np.sort(truth())[9:11].mean()
    far = np.abs(np.log(truth() / boundary))
    assert verdict.rounds > 1
    assert np.corrcoef(far, verdict.images)[0, 1] < -0.3
    assert verdict.images.min() == 64
    whole = exact_effects(network(), [drawn(1024, 0)])
    assert verdict.effects.forward_passes < whole.forward_passes


def test_guesses_are_left_out_where_they_cost_more_than_they_are_worth():
    """A network of 30 units is measured for less than it is guessed."""
    cost = {
        prescreen: race(
            network(), [drawn(600, 1)], Race(remove=0, least=64, prescreen=prescreen)
        ).effects.forward_passes
        for prescreen in (True, False, None)
    }
    assert cost[True] > cost[False] == cost[None]


def test_planted_units_without_effect_go_and_nothing_else_is_measured_on():
    case = planted.case(1, 600)
    verdict = race(case.network.ignoring(["left"]), [case.images], Race(remove=2))
    assert verdict.settled
    assert set(verdict.goes) == {case.unit(planted.DEAD), case.unit(planted.BYSTANDER)}
    assert verdict.images.max() < 600
    low, high = verdict.effects.interval
    assert low[planted.DEAD] == high[planted.DEAD] == 0


def test_what_cannot_be_settled_is_said_to_be_open():
    """Of two copies one goes, and nothing says which."""
    case = planted.case(1, 600)
    units = tuple(case.unit(k) for k in (planted.COPY, planted.OTHER_COPY))
    verdict = race(case.network, [case.images], Race(remove=1, tolerance=0.0), Question(units=units))
    assert not verdict.settled
    assert verdict.images.tolist() == [600, 600]
    assert race(case.network, [case.images], Race(remove=1, tolerance=0.1), Question(units=units)).images.max() < 600


@pytest.mark.parametrize("forward_passes", [300.0, 3000.0])
def test_the_budget_is_kept(forward_passes):
    case = planted.case(1, 600)
    assert (
        adaptive(case.network, [case.batch], Question(forward_passes=forward_passes)).forward_passes <= forward_passes
    )


def guessing(network, batches, question):
    return race(network, batches, Race(prescreen=True, seed=question.seed), question).effects


@pytest.mark.parametrize("value", ["mean", "optimal", "closed-form", "resample", "carried"])
def test_every_intervention_keeps_the_contract(value):
    check_scorer(guessing, question=Question(intervention=value))


@pytest.mark.parametrize("judge", [CrossEntropy(), "margin", "prediction-change"])
def test_every_outcome_keeps_the_contract(judge):
    check_scorer(guessing, question=Question(outcome=judge))


class Pairs(nn.Module):
    """Runs on two images at a time."""

    def __init__(self):
        super().__init__()
        self.one, self.head = nn.Linear(5, 6), nn.Linear(6, 4)

    def forward(self, x):
        return self.head(torch.relu(self.one(x)).view(2, -1))


def test_a_network_of_one_batch_size_is_measured_in_its_blocks():
    images = torch.randn(41, 5, generator=torch.Generator().manual_seed(0))
    network = trace(randomised(Pairs()), images[:2])
    found = race(network, [images], Race(least=40), Question(intervention="zero"))
    assert found.images.tolist() == [40] * 6
    expected = exact_effects(network, [images[:40]])
    assert np.corrcoef(found.effects.mean, expected.mean)[0, 1] > 0.99


def test_unusable_requests_are_refused():
    case = planted.case(1)
    for wrong in ({"confidence": 1.0}, {"tolerance": -0.1}, {"least": 1}):
        with pytest.raises(InputError):
            Race(**wrong)
    with pytest.raises(InputError, match="units are to go"):
        race(case.network, [case.batch], Race(remove=99))
    with pytest.raises(InputError, match="do not pay"):
        adaptive(case.network, [case.batch], Question(forward_passes=5.0))
    with pytest.raises(InputError, match="at least 2"):
        adaptive(case.network, [case.images[:1]], Question())
