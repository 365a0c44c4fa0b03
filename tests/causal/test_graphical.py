"""DoWhy-GCM on the network's own graph: what masked runs mend, what its attribution of changes clears and blames."""

from functools import cache

import numpy as np
import pytest
from scipy.stats import spearmanr

pytest.importorskip("dowhy", reason="the extra `causal` is not installed")

from causal.test_scm import linear
from tiny import batches, digits, trained
from whyprune.causal.exact import exact_effects
from whyprune.causal.fitted.changes import what_changed
from whyprune.causal.fitted.graphical import Y, gcm, graphical_model
from whyprune.data.batches import as_batches
from whyprune.errors import InputError
from whyprune.scoring.contract import Question
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace
from whyprune.testing import planted
from whyprune.testing.planted import BYSTANDER, DEAD, ORIGINAL


@cache
def fitted(regime="masked", outcome="margin"):
    case = planted.case(1)
    return graphical_model(case.network, [case.batch], Question(outcome=outcome), mechanism="linear", regime=regime)


def logit(logits, dense, labels):
    return logits[:, 1]


def test_in_a_linear_network_counterfactuals_are_exact():
    network, images = linear()
    data = list(as_batches([images[:128]]))
    exact = exact_effects(network, data, outcome=logit, per_image=True)
    model = graphical_model(network, data, Question(outcome=logit), mechanism="linear", rows=2000)
    found = model.unit_effects(range(len(network.units)), None)
    assert np.abs(found - exact.per_image).max() < 0.03 * np.abs(exact.per_image).max()
    name = model.variables.names[3]
    assert model.counterfactual(name) == pytest.approx(found[3], abs=1e-5)
    assert model.interventional(name) == pytest.approx(found[3].mean(), rel=0.01)


def test_masked_runs_tell_the_bystander_and_runs_as_they_are_do_not():
    case = planted.case(1)
    truth = exact_effects(case.network, [case.batch], outcome="margin").mean
    units = range(len(case.network.units))
    masked, seen = (fitted(regime).unit_effects(units, None).mean(axis=1) for regime in ("masked", "observational"))
    assert spearmanr(masked, truth)[0] > 0.7
    assert spearmanr(seen, truth)[0] < 0.3
    assert np.abs([masked[DEAD], seen[DEAD]]).max() < 1e-9
    assert abs(masked[BYSTANDER]) < abs(masked[ORIGINAL]) / 3
    assert seen[BYSTANDER] == pytest.approx(seen[ORIGINAL], rel=1e-3)


def test_arrows_and_intrinsic_influence_speak_of_the_networks_own_graph():
    model = fitted()
    arrows = model.arrows()
    assert set(arrows) == {n for n in model.variables.names if n.startswith("left")}
    assert np.isfinite(list(arrows.values())).all()
    intrinsic = model.intrinsic(samples=300, permutations=5)
    assert set(intrinsic) == {*model.variables.names, Y}
    assert intrinsic[f"units:{DEAD}"] == pytest.approx(0, abs=1e-9)


def test_blocks_are_taken_apart_by_their_units_shares():
    case = planted.case(1)
    model = graphical_model(case.network, [case.batch], Question(), mechanism="linear", most=6)
    found = model.unit_effects(range(len(case.network.units)), None)
    assert len(model.variables.names) <= 6
    assert np.abs(found[DEAD]).max() < 1e-9
    assert np.abs(found[:3]).mean() > 0


def test_what_it_cannot_answer_is_refused():
    case = planted.case(1)
    with pytest.raises(InputError, match="same on every image"):
        graphical_model(case.network, [case.batch], Question(), regime="observational")
    with pytest.raises(InputError, match="cannot carry"):
        graphical_model(case.network, [case.batch], Question(intervention="carried"))
    with pytest.raises(InputError, match="has no intervention 'carried'"):
        gcm(case.network, [case.batch], Question(intervention="carried"))
    with pytest.raises(InputError, match="no variable"):
        fitted().interventional("nobody")


@cache
def changed(group):
    network = trace(trained(), digits()[0][:2])
    units = network.group(group).units
    gone = units[: len(units) // 2]
    return what_changed(remove(State.of(network), gone), batches(1000, 1300))


@pytest.mark.parametrize("group", ["inner.0", "wide.0"])
def test_the_shares_of_a_change_add_up_and_clear_what_lies_in_front(group):
    found = changed(group)
    assert sum(found.shares.values()) == pytest.approx(found.change, rel=0.1)
    cleared = {"inner.0": ["stem.0:0-7 @ inner.0"], "wide.0": ["stem.0:0-7 @ inner.0", "inner.0:0-9"]}[group]
    for name in cleared:
        assert abs(found.shares[name]) < 0.05 * found.change
    assert str(found).startswith("margin changed by +")


def test_a_finding_the_blame_falls_on_what_reads_the_pruned_group():
    found = changed("inner.0")
    assert found.shares["inner.0:0-9"] < 0.3 * found.change
    assert found.shares[Y] > 0.5 * found.change
