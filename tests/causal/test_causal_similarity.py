"""Similar filters are asked by joint interventions: of those that stand in for each other one stays, no others go."""

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from structure.networks import traced
from structure.removal_property import fresh_batch
from whyprune.causal.similar.bench import MEASURED_ON, UNCARRIED, Group
from whyprune.criteria import filter_similarity
from whyprune.effects.outcomes import LogitShift
from whyprune.errors import InputError
from whyprune.interventions.sets import SetEffects
from whyprune.interventions.values import Intervention
from whyprune.interventions.worlds import Worlds
from whyprune.scoring.estimate import estimate
from whyprune.structure.remove import remove
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.trace import trace
from whyprune.testing import planted

NAME = "causal-filter-similarity"
NOTHING = 1e-5


class Read(nn.Module):
    """(B, 2, 6, 6) to three logits: one layer of units, and one that reads them."""

    def __init__(self, filters, *, bias=None, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.units = nn.Conv2d(2, len(filters), 3, padding=1)
            self.reader = nn.Conv2d(len(filters), 6, 1)
            self.head = nn.Linear(6, 3)
        with torch.no_grad():
            self.units.weight.copy_(filters)
            self.units.bias.copy_(torch.zeros(len(filters)) if bias is None else bias)

    def forward(self, x):
        return self.head(F.relu(self.reader(F.relu(self.units(x)))).mean(dim=(2, 3)))


@cache
def drawn(seed=0, count=96):
    return torch.randn(count, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def filters(count, seed=1):
    return torch.randn(count, 2, 3, 3, generator=torch.Generator().manual_seed(seed))


def judged(model, images, **options):
    network = trace(model.eval(), images[:2])
    found = estimate(network, [images], method=NAME, **options)
    return found.mean[np.array(found.groups) == "units"], found


def test_of_the_planted_units_those_go_that_nobody_misses():
    case = planted.case(1)
    found = estimate(case.network, [case.images], method=NAME)
    score = found.mean[:9]
    for free in (planted.PLUS, planted.MINUS, planted.DEAD, planted.BYSTANDER):
        assert score[free] < NOTHING
    assert score[planted.OTHER_COPY] < NOTHING < 0.01 < score[planted.COPY]
    for matters in (planted.ORIGINAL, planted.ONE_CLASS, planted.PLAIN):
        assert score[matters] > 0.01
    assert found.natural_widths["units"] == 4


@pytest.mark.parametrize("noise", [0.0, 1e-3])
@pytest.mark.parametrize("copies", [2, 3, 4, 5])
def test_of_any_number_of_copies_one_stays_and_one_only(copies, noise):
    """Alone, each of them is carried by the others: single effects would let all of them go."""
    weights = filters(8)
    weights[3 : 3 + copies] = weights[3] + noise * filters(copies, seed=2)
    score, _ = judged(Read(weights), drawn())
    same, others = score[3 : 3 + copies], np.delete(score, np.s_[3 : 3 + copies])
    assert (same < 1e-3).sum() == copies - 1
    assert same.max() > 0.01
    assert others.min() > 0.01


def test_filters_that_look_alike_and_do_not_stand_in_for_each_other_both_stay():
    """The same weights, one with a bias that shuts it for most inputs: distance 0 to the criterion, which drops one."""
    weights, bias = filters(6), torch.zeros(6)
    weights[1] = weights[0]
    bias[0], bias[1] = 2.0, -3.0
    model = Read(weights, bias=bias)
    score, found = judged(model, drawn())
    plain = filter_similarity(trace(model.eval(), drawn()[:2])).mean[:6]
    assert plain.min() == plain[:2].min() == 0
    alone = estimate(trace(model, drawn()[:2]), [drawn()], method="exact", intervention="mean").mean[:6]
    assert (score[:2] > UNCARRIED * alone[:2]).all()
    assert found.natural_widths["units"] == 6


def test_filters_that_read_the_same_from_different_inputs_are_found_though_their_weights_differ():
    images = drawn().clone()
    images[:, 1] = images[:, 0]
    weights = filters(6)
    weights[:2] = 0
    weights[0, 0] = weights[1, 1] = filters(1, seed=3)[0, 0]
    model = Read(weights)
    score, _ = judged(model, images)
    plain = filter_similarity(trace(model.eval(), images[:2])).mean[:6]
    assert plain[:2].max() > np.median(plain)
    assert score[:2].min() < NOTHING < 0.01 < score[:2].max()
    seen_apart, _ = judged(model, drawn())
    assert seen_apart[:2].min() > 0.01


def test_scores_are_joint_effects_by_another_way_through_the_network():
    """`Worlds` on six images, which are too few to be divided: the same images for predictions and effects."""
    weights = filters(5)
    model, images = Read(torch.cat([weights, weights[:2]])), drawn(seed=4, count=6)
    network = trace(model.eval(), images[:2])
    found = estimate(network, [images], method=NAME, units=[u for u in network.units if u.group == "units"])
    worlds = Worlds(network, [images], intervention="carried", units=found.units)

    def joint(places):
        return float(worlds.joint(np.isin(np.arange(7), places)).mean())

    gone = [int(k) for k in np.argsort(found.mean)[: 7 - found.natural_widths["units"]]]
    assert sorted(k % 5 for k in gone) == [0, 1]  # one of each pair of copies
    rest = sorted(set(range(7)) - set(gone), key=lambda k: joint([*gone, k]))
    heights = [joint([*gone, *rest[:k]]) for k in range(len(rest) + 1)]
    np.testing.assert_allclose(found.mean[rest], np.maximum.accumulate(np.diff(heights)), rtol=1e-3, atol=1e-6)
    assert found.mean[gone] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", ["residual", "flatten", "separable", "grouped"])
@pytest.mark.parametrize("value", ["carried", "zero"])
def test_effects_of_sets_are_those_of_worlds(name, value):
    network = traced(name)
    batch = fresh_batch(network)
    worlds = Worlds(network, [batch], intervention=value)
    replay = Replay(network)
    outcome, fitted = LogitShift().fit(worlds.dense), Intervention(value).fit(replay, [batch])
    for group in network.groups:
        joint = SetEffects(replay, replay, [batch], group.units, outcome, fitted)
        for units in (group.units[:1], group.units[::2]):
            mask = np.array([u in units for u in worlds.units])
            np.testing.assert_allclose(joint(units), worlds.joint(mask), rtol=1e-3, atol=1e-5)


def test_effects_of_sets_in_a_state_are_on_top_of_what_is_gone():
    network = traced("residual")
    batch, state = fresh_batch(network), remove(State.of(network), network.units[::5])
    worlds, replay = Worlds(state, [batch]), Replay.of(state)
    outcome = LogitShift().fit(worlds.dense)
    units = [u for u in state.units if u.group == state.units[0].group]
    joint = SetEffects(replay, Replay(network), [batch], units, outcome, Intervention("zero"))
    mask = np.array([u in units[:2] for u in worlds.units])
    np.testing.assert_allclose(joint(units[:2]), worlds.joint(mask), rtol=1e-3, atol=1e-5)
    assert np.abs(worlds.base).max() > 1e-3


def test_rounding_does_not_say_who_is_asked():
    alone = np.stack([np.full(8, 1.0), np.full(8, 0.5)])
    unique = np.stack([np.full(8, 1e-13), np.full(8, 2e-13)])
    group = Group(list(traced("residual").units[:2]), np.zeros((2, 2)), unique, alone)
    assert list(group.closest_first()) == [(1, 0)]
    assert group.carried(0, unique[1])


def test_it_keeps_to_its_passes_and_says_what_two_images_cost():
    case = planted.case(1)
    for passes in (200.0, 1000.0):
        found = estimate(case.network, [case.images], method=NAME, forward_passes=passes)
        assert found.forward_passes <= passes
        assert 2 <= found.samples <= MEASURED_ON
    with pytest.raises(InputError, match="10 forward passes do not pay for joint effects on 2 images: give at least"):
        estimate(case.network, [case.images], method=NAME, forward_passes=10.0)
    with pytest.raises(InputError, match=r"1 image\(s\) of data: at least 2"):
        estimate(case.network, [case.images[:1]], method=NAME)


def test_some_units_are_judged_among_all_of_their_group():
    case = planted.case(1)
    whole = estimate(case.network, [case.images], method=NAME)
    some = [case.unit(planted.COPY), case.unit(planted.OTHER_COPY)]
    few = estimate(case.network, [case.images], method=NAME, units=some)
    assert few.by_unit() == {name: whole[name] for name in some}
    assert set(few.natural_widths) == {"units"}
