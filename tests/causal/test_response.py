"""Response curves against removals and refits done by hand."""

import numpy as np
import pytest
import torch

from causal.oracles import carried_value, hooked, logits
from structure.networks import traced
from structure.removal_property import fresh_batch
from whyprune.causal.response.curves import response_curves
from whyprune.data.batches import split_images
from whyprune.effects.outcomes import LogitShift
from whyprune.scoring.contract import Question
from whyprune.scoring.registry import SCORERS
from whyprune.structure.remove import remove
from whyprune.structure.state import State

NAMES = ["residual", "flatten", "separable", "grouped", "concat", "squeeze excite", "vgg", "mlp"]


def fit_and_measure(network, count=200):
    return fresh_batch(network, count, seed=1), fresh_batch(network, 60, seed=2)


def shift(network, found, batch):
    dense = logits(network.model, batch)
    return LogitShift().fit(dense)(found, dense, None).double().numpy()


def assert_point(curve, point, harm, tolerance):
    assert curve.effect[point] == pytest.approx(harm.mean(), rel=tolerance, abs=tolerance)
    assert curve.standard_error[point] == pytest.approx(
        harm.std(ddof=1) / np.sqrt(len(harm)), rel=10 * tolerance, abs=tolerance
    )


@pytest.mark.parametrize("name", NAMES)
def test_curves_run_from_nothing_to_all_but_one_unit(name):
    network = traced(name)
    fit, measure = fit_and_measure(network)
    curves = response_curves(network, [fit], [measure])
    assert set(curves) == {g.name for g in network.groups if len(g.units) > 1}
    for group_name, curve in curves.items():
        own = {u.name for u in network.group(group_name).units}
        assert len(set(curve.order)) == len(curve.order) == len(own) - 1
        assert set(curve.order) < own
        assert curve.removed[0] == curve.effect[0] == curve.standard_error[0] == 0
        assert curve.removed[-1] == len(own) - 1
        assert (np.diff(curve.removed) > 0).all()
        assert np.isfinite(curve.effect).all()


def test_where_one_layer_reads_it_is_refitted_to_what_it_gave():
    """The last layer, by ridge regression: features are flattened channels of 16 pixels."""
    network = traced("flatten")
    fit, measure = fit_and_measure(network)
    curve = response_curves(network, [fit], [measure])["features.0"]
    model = network.model
    with torch.no_grad():
        x, seen = (model.features(b.args[0]).flatten(1).double().numpy() for b in (fit, measure))
    target = logits(model, fit).double().numpy()
    strength = 1e-3 * ((x - x.mean(axis=0)) ** 2).sum(axis=0).mean()
    for point, count in enumerate(curve.removed[1:], start=1):
        gone = {int(u.rpartition(":")[2]) for u in curve.order[:count]}
        kept = [f for f in range(96) if f // 16 not in gone]
        own = x[:, kept] - x[:, kept].mean(axis=0)
        weights = np.linalg.solve(own.T @ own + strength * np.eye(len(kept)), own.T @ target)
        found = (seen[:, kept] - x[:, kept].mean(axis=0)) @ weights + target.mean(axis=0)
        assert_point(curve, point, shift(network, torch.from_numpy(found).float(), measure), 1e-3)


def test_where_several_layers_read_each_sees_the_best_prediction_from_what_stays():
    network = traced("residual")
    fit, measure = fit_and_measure(network, count=400)
    curve = response_curves(network, [fit], [measure])["stem.0"]
    for point, count in enumerate(curve.removed[1:], start=1):
        gone = sorted(int(u.rpartition(":")[2]) for u in curve.order[:count])
        found = hooked(network.model, {"first.0": 1, "head": 1}, gone, carried_value, measure, calibration=fit)
        assert_point(curve, point, shift(network, found, measure), 1e-3)


@pytest.mark.parametrize("name", ["residual", "separable", "concat"])
def test_curves_go_on_from_what_is_gone(name):
    network = traced(name)
    fit, measure = fit_and_measure(network)
    gone = [g.units[0] for g in network.groups]
    curves = response_curves(remove(State.of(network), gone), [fit], [measure])
    for group in network.groups:
        left = {u.name for u in group.units[1:]}
        assert set(curves[group.name].order) < left
        assert curves[group.name].removed[-1] == len(left) - 1


def test_the_same_seed_gives_the_same_curves():
    network = traced("residual")
    fit, measure = fit_and_measure(network)
    first, second = (response_curves(network, [fit], [measure], seed=3) for _ in range(2))
    for name, curve in first.items():
        assert curve.order == second[name].order
        np.testing.assert_array_equal(curve.effect, second[name].effect)


def test_the_scorer_measures_the_curves_and_gives_every_unit_its_rise():
    network = traced("residual")
    batches = [fresh_batch(network, count=48)]
    found = SCORERS("curves")(network, batches, Question(seed=3))
    fit, measure = split_images(batches)
    expected = response_curves(network, fit, measure, seed=3)
    assert found.estimand == "curve"
    assert found.samples == sum(map(len, measure))
    assert found.blocks == {}
    for name, curve in found.curves.items():
        assert np.array_equal(curve.effect, expected[name].effect)
        rise = [found[unit] for unit in curve.order]
        np.testing.assert_allclose(np.cumsum([0, *rise])[curve.removed], curve.effect, atol=1e-9)
        stays = [u.name for u in network.group(name).units if u.name not in curve.order]
        assert len(stays) == 1
        assert found[stays[0]] == max(rise)


def test_the_scorer_measures_only_groups_of_units_asked_for_and_gives_what_has_no_curve_the_highest():
    network = traced("residual")
    batches = [fresh_batch(network, count=48)]
    group = network.groups[0]
    few = SCORERS("curves")(network, batches, Question(units=(group.units[0].name,)))
    assert list(few.curves) == [group.name]
    assert few.units == (group.units[0].name,)
    state = remove(State.of(network), group.units[1:])
    left = SCORERS("curves")(state, batches, Question())
    assert group.name not in left.curves
    assert left[group.units[0]] == left.mean.max()


def test_curves_keep_to_a_budget():
    network = traced("residual")
    batches = [fresh_batch(network, count=120)]
    free = SCORERS("curves")(network, batches, Question())
    for budget in (150.0, 400.0):
        found = SCORERS("curves")(network, batches, Question(forward_passes=budget))
        assert found.forward_passes <= budget < free.forward_passes
        assert found.samples < free.samples
