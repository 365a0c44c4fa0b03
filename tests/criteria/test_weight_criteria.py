"""Criteria of weights against brute force on small layers."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from structure.networks import traced
from whyprune.allocation.objective import comparable
from whyprune.criteria import bn_scale, geometric_median, lamp, magnitude, synflow
from whyprune.errors import InputError
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace


def residual_slices(model, unit):
    """The slices of every coupled weight of the `residual` network, written by hand: (all slices, the unit's)."""
    first, second, stem, head = model.first[0].weight, model.second[0].weight, model.stem[0].weight, model.head.weight
    if unit.group == "first.0":
        return [first.flatten(1), second.transpose(0, 1).flatten(1)]
    return [stem.flatten(1), second.flatten(1), first.transpose(0, 1).flatten(1), head.T.flatten(1)]


@pytest.mark.parametrize(("reduction", "numpy"), [("mean", np.mean), ("sum", np.sum), ("max", np.max), (None, np.mean)])
def test_the_geometric_median_is_the_sum_of_distances_to_all_other_slices(reduction, numpy):
    network = traced("residual")
    scores = geometric_median(network, reduction=reduction)
    for unit in network.units:
        sums = []
        for slices in residual_slices(network.model, unit):
            own = slices[unit.index].detach()
            sums.append(sum(float((own - other).detach().norm()) for other in slices.detach()))
        assert scores[unit] == pytest.approx(numpy(sums), rel=1e-5)


def test_copies_of_one_filter_have_distance_zero_and_go_first():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)).eval()
    with torch.no_grad():
        model[0].weight[1:4] = model[0].weight[0]
        model[4].weight[:, 1:4] = model[4].weight[:, :1]
    scores = geometric_median(trace(model, torch.zeros(2, 3, 6, 6))).mean
    assert scores[:4].max() < scores[4:].min()


@pytest.mark.parametrize("reduction", [None, "max"])
def test_lamp_divides_by_everything_that_is_not_smaller(reduction):
    network = traced("residual")
    squares, scores = magnitude(network, reduction=reduction).by_unit(), lamp(network, reduction=reduction)
    for group in network.groups:
        own = [squares[u.name] for u in group.units]
        for unit in group.units:
            larger = sum(v for v in own if v >= squares[unit.name])
            assert scores[unit] == pytest.approx(squares[unit.name] / larger)
        assert max(scores[u] for u in group.units) == 1.0


def test_lamp_does_not_change_when_a_layer_is_scaled_and_is_ranked_over_all_groups_as_it_is():
    network = traced("residual")
    before = lamp(network)
    assert comparable(network, before) == before.by_unit()
    plain = magnitude(network)
    assert comparable(network, plain) != plain.by_unit()
    twin = trace(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval(), torch.zeros(2, 4))
    first = lamp(twin).mean
    with torch.no_grad():
        for parameter in twin.model.parameters():
            parameter.mul_(3.0)
    np.testing.assert_allclose(lamp(twin).mean, first, rtol=1e-6)


def test_the_scale_of_a_normalisation_is_its_gamma_and_the_filter_norm_where_there_is_none():
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 6, 3),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2),
    ).eval()  # fmt: skip
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.5, -2.0, 0.0, 1.0, 3.0]))
    network = trace(model, torch.zeros(2, 3, 9, 9))
    scores = bn_scale(network).by_unit()
    assert [scores[f"0:{k}"] for k in range(5)] == [0.5, 2.0, 0.0, 1.0, 3.0]
    for k in range(4):
        assert scores[f"3:{k}"] == pytest.approx(float(model[3].weight[k].detach().norm()), rel=1e-6)
    for k in range(6):
        assert scores[f"5:{k}"] == pytest.approx(float(model[5].weight[:, k].detach().norm()), rel=1e-6)


def test_a_stream_that_several_layers_write_has_the_mean_of_their_gammas():
    network = traced("residual")
    model, scores = network.model, bn_scale(network).by_unit()
    norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for unit in network.units:
        own = [float(norms[s.parameter[:-7]].weight[s.indices[0]].detach().abs()) for s in unit.slices
               if s.parameter.endswith(".weight") and s.parameter[:-7] in norms]  # fmt: skip
        assert own
        assert scores[unit.name] == pytest.approx(np.mean(own), rel=1e-6)


def test_synflow_is_the_flow_that_is_lost_when_a_unit_is_cut_from_the_absolute_network():
    """Without biases and norms the flow is multilinear: a unit's in-going, out-going and lost flow are one number."""
    model = nn.Sequential(nn.Conv2d(2, 5, 3, bias=False), nn.ReLU(), nn.Conv2d(5, 4, 3, bias=False), nn.ReLU(),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3, bias=False)).eval()  # fmt: skip
    network = trace(model, torch.zeros(2, 2, 8, 8))
    scores, absolute = synflow(network).by_unit(), copy.deepcopy(model)
    with torch.no_grad():
        for p in absolute.parameters():
            p.abs_()
    whole = trace(absolute, torch.zeros(2, 2, 8, 8))
    ones = torch.ones(2, 2, 8, 8)
    full = float(absolute(ones).detach().double().sum())
    for unit in whole.units:
        lost = full - float(remove(whole, [unit])(ones).detach().double().sum())
        assert scores[unit.name] == pytest.approx(lost, rel=1e-4)


def test_weight_criteria_of_a_pruned_state_are_those_of_the_smaller_network():
    network = traced("residual")
    state = remove(State.of(network), [network.units[0], network.units[-1]])
    again = trace(state.model, network.example.args)
    for criterion in (magnitude, geometric_median, lamp, bn_scale, synflow):
        mine, fresh = criterion(state), criterion(again)
        np.testing.assert_allclose(mine.mean, fresh.mean, rtol=1e-9)
        assert mine.given == (network.units[0].name, network.units[-1].name)


def test_an_unknown_reduction_names_those_that_exist():
    with pytest.raises(InputError, match=r"'median'.*mean, sum, max"):
        magnitude(traced("residual"), reduction="median")
