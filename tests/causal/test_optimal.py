"""Optimal constants do no more harm than zero or the mean, and cost what they say."""

import numpy as np
import pytest
import torch
from torch import nn

from structure.networks import conv_bn, randomised, traced
from structure.removal_property import fresh_batch
from tiny import batches, digits, trained
from whyprune.causal.exact import exact, exact_effects
from whyprune.data.batches import as_batch
from whyprune.effects.outcomes import as_outcome
from whyprune.interventions.optimal import Constants
from whyprune.interventions.suffix import individual_effects, relative_cost, suffixes
from whyprune.interventions.values import Intervention, fit_cost
from whyprune.interventions.worlds import Worlds
from whyprune.scoring.contract import Question
from whyprune.structure.remove import remove
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.trace import trace
from whyprune.testing import planted

ROUNDING = 1e-5


def tiny():
    return trace(trained(), digits()[0][:2]), [as_batch(b) for b in batches(1000, 1128)]


def case(name):
    if name == "tiny":
        return tiny()
    if name.startswith("planted"):
        found = planted.case(int(name[-1]))
        return found.network, [found.batch]
    return traced(name), [fresh_batch(traced(name), count=60)]


@pytest.mark.parametrize("outcome", ["logit-shift", "cross-entropy", "prediction-change"])
@pytest.mark.parametrize("name", ["tiny", "planted 1", "planted 2", "residual", "flatten", "mlp"])
def test_no_unit_is_harmed_more_than_by_zero_or_by_the_mean(name, outcome):
    network, data = case(name)
    if outcome == "cross-entropy" and data[0].labels is None:
        outcome = "margin-like"
    chosen = _closeness if outcome == "margin-like" else outcome
    found = {v: exact_effects(network, data, outcome=chosen, intervention=v).mean for v in ("zero", "mean", "optimal")}
    least = np.minimum(found["zero"], found["mean"])
    assert (found["optimal"] <= least + ROUNDING * max(1.0, least.max())).all()
    if outcome == "logit-shift" and name != "flatten":  # where all is linear behind a unit, its mean is the best
        assert found["optimal"].sum() < 0.999 * least.sum()


def _closeness(logits, dense, labels):
    """An outcome of the user's own."""
    return (logits - dense).abs().sum(dim=1)


def test_it_holds_in_a_network_that_was_pruned_already():
    network, data = tiny()
    gone = network.select([g.units[0].name for g in network.groups])
    state = remove(State.of(network), gone)
    found = {v: exact_effects(state, data, intervention=v).mean for v in ("zero", "mean", "optimal")}
    assert (found["optimal"] <= np.minimum(found["zero"], found["mean"]) + ROUNDING).all()


def test_where_harm_is_a_parabola_its_lowest_point_is_found():
    """Behind the units everything is linear; a grid over the activation's range finds nothing better."""
    model = randomised(nn.Sequential(*conv_bn(2, 4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(48, 3)))
    images = torch.randn(30, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    network = trace(model, images[:2])
    units = [u for u in network.units if u.group == "0"]
    replay, data = Replay(network), [as_batch(images)]
    outcome = as_outcome(None).fit(replay.logits(data[0]))
    found = exact_effects(network, data, intervention="optimal", units=units).mean
    reader = replay.readers(units)[0].data
    seen = replay.run(data[0], keep={reader})[reader]
    for share in np.linspace(0, 1, 41):
        at = {r.data: torch.zeros(len(r.labels)) for r in network.readers}
        at[reader] = seen.amin(dim=(0, 2, 3)).lerp(seen.amax(dim=(0, 2, 3)), float(share))
        harm = individual_effects(replay, replay, data, units, outcome, Constants(at)).mean(axis=1)
        assert (found <= harm + 1e-5).all()


@pytest.mark.parametrize("value", ["zero", "mean", "carried", "closed-form", "optimal"])
def test_fitting_costs_what_it_says(value):
    network, data = tiny()
    replay = Replay(network)
    measuring = relative_cost(network, suffixes(replay, network.units)) * len(network.units)
    outcome = as_outcome(None).fit(replay.logits(data[0]))
    fitted = Intervention(value).fit(replay, data, outcome)
    assert fitted.forward_passes == pytest.approx(fit_cost(value, measuring) * 128)
    assert Worlds(network, data, intervention=value).forward_passes == pytest.approx(fitted.forward_passes + 128)
    spent = exact(network, data, Question(intervention=value, forward_passes=6000.0)).forward_passes
    assert spent <= 6000


def test_only_units_that_are_asked_for_are_searched():
    network, data = tiny()
    some = network.units[3:5]
    few = exact_effects(network, data, intervention="optimal", units=some)
    every = exact_effects(network, data, intervention="optimal")
    assert few.forward_passes < every.forward_passes / 2
    for unit in some:
        assert few[unit] == pytest.approx(every[unit], rel=1e-3)
