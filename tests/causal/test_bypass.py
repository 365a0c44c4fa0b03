"""The effect of a residual block that goes as a whole, against removal and refits done by hand."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from causal.oracles import logits
from structure.networks import randomised
from structure.removal_property import fresh_batch
from structure.residual_models import Blocks, Bottleneck, Residual
from whyprune.causal.exact import exact_effects
from whyprune.causal.response import bypass
from whyprune.causal.response.bypass import bypass_effects
from whyprune.causal.response.curves import response_curves
from whyprune.data.batches import split_images
from whyprune.effects.outcomes import LogitShift
from whyprune.scoring.contract import Question
from whyprune.scoring.registry import SCORERS
from whyprune.structure.bypass import units_of
from whyprune.structure.network import Network
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace


@cache
def network(dead: int | None = None) -> Network:
    torch.manual_seed(0)
    model = randomised(Blocks(Residual(), Bottleneck(), Residual()), seed=4)
    if dead is not None:
        with torch.no_grad():
            for parameter in model.blocks[dead].parameters():
                parameter.zero_()
    return trace(model, torch.randn(2, 3, 8, 8))


def images(net, count=150):
    return fresh_batch(net, count, seed=1), fresh_batch(net, 60, seed=2)


def shift(net, found, batch):
    dense = logits(net.model, batch)
    return LogitShift().fit(dense)(found, dense, None).double().numpy()


def test_without_refits_it_is_what_removal_does(monkeypatch):
    monkeypatch.setattr(bypass, "REFITTED", 0)
    net = network()
    fit, measure = images(net)
    found = bypass_effects(net, [fit], [measure])
    assert list(found) == [b.name for b in net.blocks]
    for block in net.blocks:
        harm = shift(net, logits(remove(net, units_of(net, [block])), measure), measure)
        assert found[block.name].effect == pytest.approx(harm.mean(), rel=1e-4)
        assert found[block.name].standard_error == pytest.approx(harm.std(ddof=1) / np.sqrt(len(harm)), rel=1e-4)


def test_the_head_behind_the_last_block_is_refitted_to_what_it_gave():
    """Ridge regression from pooled channels, as repair has it."""
    net = network()
    fit, measure = images(net)
    last = net.blocks[-1]
    small = nn.Sequential(net.model.stem, *list(net.model.blocks)[:-1])
    with torch.no_grad():
        x, seen = (small(b.args[0]).mean(dim=(2, 3)).double().numpy() for b in (fit[:128], measure))
    target = logits(net.model, fit[:128]).double().numpy()
    weight = net.model.head.weight.detach().double().numpy()
    own = x - x.mean(axis=0)
    strength = 1e-3 * (own**2).sum(axis=0).mean()
    # the ridge pulls towards the weights that are there
    step = np.linalg.solve(own.T @ own + strength * np.eye(x.shape[1]), own.T @ (target - own @ weight.T))
    new = weight.T + step
    found = (seen - x.mean(axis=0)) @ new + target.mean(axis=0)
    effect = bypass_effects(net, [fit], [measure])[last.name].effect
    assert effect == pytest.approx(shift(net, torch.from_numpy(found).float(), measure).mean(), rel=0.02)


def test_a_dead_block_has_no_effect():
    net = network(dead=1)
    fit, measure = images(net)
    found = {name: e.effect for name, e in bypass_effects(net, [fit], [measure]).items()}
    assert abs(found["blocks.1"]) < 0.05 * min(found["blocks.0"], found["blocks.2"])


def test_effects_are_conditional_on_what_is_gone():
    net = network()
    fit, measure = images(net)
    gone = net.select([*units_of(net, net.blocks[:1]), *net.group("stem.0").units[:2]])
    found = bypass_effects(remove(State.of(net), gone), [fit], [measure])
    assert list(found) == [b.name for b in net.blocks[1:]]
    assert all(np.isfinite(e.effect) for e in found.values())


def test_the_networks_weights_stay_as_they_are():
    net = network()
    before = {name: t.clone() for name, t in net.model.state_dict().items()}
    fit, measure = images(net, 40)
    bypass_effects(net, [fit], [measure])
    assert all(torch.equal(t, before[name]) for name, t in net.model.state_dict().items())


@pytest.mark.parametrize("intervention", ["zero", "mean", "carried"])
def test_other_effects_behind_a_dead_block_are_those_without_it(intervention):
    """A block that does nothing is bypassed: the same network, traced anew, has the same effects and curves."""
    net = network(dead=1)
    gone = net.select(units_of(net, net.blocks[1:2]))
    state = remove(State.of(net), gone)
    own = trace(state.model, net.example)
    fit, measure = images(net, 40)
    found = exact_effects(state, [measure], intervention=intervention)
    alone = exact_effects(own, [measure], intervention=intervention)
    assert found.units == alone.units
    assert found.mean == pytest.approx(alone.mean, rel=1e-3, abs=1e-5)
    curves = response_curves(state, [fit], [measure])
    others = response_curves(own, [fit], [measure])
    assert curves.keys() == others.keys()
    for name, curve in curves.items():
        assert curve.effect == pytest.approx(others[name].effect, rel=1e-2, abs=1e-4)


def test_the_scorer_gives_the_effects_of_blocks_where_they_are_asked_for():
    net = network()
    state = remove(State.of(net), units_of(net, net.blocks[:1]))
    batches = [fresh_batch(net, 60)]
    found = SCORERS("curves")(state, batches, Question(kinds=("width", "block")))
    expected = bypass_effects(state, *split_images(batches))
    assert found.blocks == {name: block.effect for name, block in expected.items()}
    assert list(found.blocks) == [block.name for block in net.blocks[1:]]
    assert found.only(found.units[:2]).blocks == {}


ALIKE = [name for name in SCORERS if not SCORERS(name).facts.extra and name != "random"]


@pytest.mark.parametrize("name", ALIKE)
def test_scorers_judge_behind_a_dead_block_as_in_the_network_without_it(name):
    """The module of the state, traced anew, is the same network, and so is the original that it is compared with."""
    net = network(dead=1)
    state = remove(State.of(net), units_of(net, net.blocks[1:2]))
    own = trace(state.model, net.example)
    batch = fresh_batch(net, 24)
    found, alone = (SCORERS(name)(start, [batch], Question()) for start in (state, own))
    assert found.units == alone.units
    assert found.mean == pytest.approx(alone.mean, rel=2e-2, abs=1e-3 * float(np.abs(alone.mean).max()))
