"""Planning by conditional effects: what is settled goes first, copies never go both, the budget holds at the end."""

import numpy as np
import pytest

import tiny
from pipeline.in_rounds import in_rounds
from whyprune.allocation import Budget, allocate
from whyprune.allocation.constraints import Constraints
from whyprune.causal.exact import exact_effects
from whyprune.data.calibration import calibrate
from whyprune.effects.effects import from_samples
from whyprune.pipeline.rounds import certain_removals, prune_in_rounds
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace
from whyprune.testing import planted
from whyprune.testing.planted import COPY, DEAD, OTHER_COPY


@pytest.fixture(scope="module")
def network():
    return trace(tiny.trained(), tiny.digits()[0][:2])


def made_up(network, means, spread):
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (len(network.units), 400))
    values = (np.array(means)[:, None] + spread * noise).astype(np.float32)
    about = {"outcome": "logit-shift", "intervention": "carried", "estimand": "conditional", "method": "made up"}
    return from_samples(network.units, values, **about)


def test_what_is_told_apart_is_certain_removals(network):
    means = np.arange(len(network.units), dtype=float)
    chosen = [u.name for u in network.units[:10]]
    assert certain_removals(made_up(network, means, 0.1), chosen) == chosen
    assert (
        certain_removals(made_up(network, means, 300.0), chosen)
        == sorted(chosen, key=lambda name: made_up(network, means, 300.0)[name])[:5]
    )


def test_the_rounds_end_within_the_budget_and_say_what_was_open(network):
    calibration = calibrate(tiny.batches(0, 240), 1, None, 0)
    found = prune_in_rounds(network, calibration, Budget(macs=0.45), method=in_rounds("conditional"))
    assert found.plan.macs <= 0.45 * network.cost().macs
    assert found.plan.method == "conditional"
    assert all("not settled" in note or "planned again" in note for note in found.notes)
    assert found.plan.params == sum(p.numel() for p in found.state.model.parameters())


def test_of_two_copies_one_stays_as_long_as_others_are_free():
    """Single effects let both go; conditional, unique effects see that the second one is the only one left."""
    case = planted.case(1, 96)
    units = [case.unit(k) for k in range(planted.UNITS)]
    network = case.network.ignoring([g.name for g in case.network.groups if g.name != "units"])
    calibration = calibrate([case.images], 1, None, 0)
    dense, seven = network.cost(), network.cost([network.by_name[u] for u in units[:4]])
    budget = Budget(macs=seven.macs / dense.macs)
    found = prune_in_rounds(network, calibration, budget, method=in_rounds("conditional", step=1.1, repair="none"))
    gone = {int(name.rpartition(":")[2]) for name in found.plan.units}
    assert DEAD in gone
    assert not {COPY, OTHER_COPY} <= gone


def test_constraints_hold_after_every_round(network):
    calibration = calibrate(tiny.batches(0, 240), 1, None, 0)
    constraints = Constraints(round_to=4)
    found = prune_in_rounds(
        network, calibration, Budget(macs=0.6), method=in_rounds("conditional"), constraints=constraints
    )
    gone = found.plan.removed_per_group()
    assert all((g.width - gone.get(g.name, 0)) % 4 == 0 or g.name not in gone for g in network.groups)


def test_a_ranking_goes_on_from_what_is_gone(network):
    gone = [g.units[0] for g in network.groups]
    state = remove(State.of(network), gone)
    effects = exact_effects(remove(State.of(network), gone), tiny.batches(1000, 1064))
    plan = allocate(state, effects, Budget(macs=0.5), allocation="global", base=0.25)
    assert {u.name for u in gone} <= set(plan.units)
    fresh = set(plan.units) - {u.name for u in gone}
    assert plan.predicted == pytest.approx(0.25 + sum(effects[name] for name in fresh))
    assert plan.macs <= 0.5 * network.cost().macs
