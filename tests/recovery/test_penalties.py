"""Penalties: what they are, that they make units small, and that a training with one resumes and ends as it should."""

import copy
import math
from dataclasses import replace
from functools import partial
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
from torch import nn

import tiny
from recovery.test_resume import interrupted, same_run
from samples.sample_penalty import Sample
from structure.networks import CASES, traced
from whyprune import named
from whyprune.errors import InputError
from whyprune.recovery import PENALTIES, CoupledWeights, Recovery, penalty, recover
from whyprune.structure.network import Network
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace

BUILT_IN = ("resnet20", "vgg16_bn", "digits_cnn")
DATA = tiny.batches(0, 320)


@pytest.fixture(scope="module")
def network():
    return trace(tiny.trained(), tiny.digits()[0][:2])


def weights_of(model: nn.Module, unit) -> list[float]:
    """The entries of all parameters that go with a unit, each once."""
    named_parameters = dict(model.named_parameters())
    found = []
    for name, parameter in named_parameters.items():
        pieces = [piece for piece in unit.slices if piece.parameter == name]
        found += [
            float(parameter.detach()[place])
            for place in np.ndindex(*parameter.shape)
            if any(place[piece.axis] in piece.indices for piece in pieces)
        ]
    return found


@pytest.mark.parametrize("name", CASES)
def test_group_lasso_is_the_sum_over_units(name):
    """Oracle: explicit loops over units, parameters and entries."""
    network = traced(name)
    if not network.units:
        with pytest.raises(InputError, match="no removable unit"):
            PENALTIES("group-lasso")(network.model, network)
        return
    expected = 0.0
    for unit in network.units:
        weights = weights_of(network.model, unit)
        expected += math.sqrt(len(weights)) * math.sqrt(sum(weight**2 for weight in weights))
    model = copy.deepcopy(network.model).double()
    found = PENALTIES("group-lasso")(model, network)()
    assert found.dtype == torch.float64
    assert float(found.detach()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("tie", [False, True])
def test_norms_are_in_the_order_of_the_units_of_a_changed_network(tie):
    network = traced("residual").together([["stem.0"]]) if tie else traced("vgg").ignoring(["features.3"])
    coupled = CoupledWeights(network.model, network)
    lists = [weights_of(network.model, unit) for unit in network.units]
    assert coupled.sizes.tolist() == [len(weights) for weights in lists]
    expected = torch.tensor([math.sqrt(sum(w**2 for w in weights)) for weights in lists])
    torch.testing.assert_close(coupled.norms().detach(), expected)


def test_no_group_of_a_real_network_is_forgotten():
    network = traced("resnet20")
    coupled = CoupledWeights(network.model, network)
    shapes = {name: p.shape for name, p in network.model.named_parameters()}
    first, last = network.units[0], network.units[-1]
    for number, unit in ((0, first), (-1, last)):
        slices = [s for s in unit.slices if s.parameter in shapes]
        most = sum(shapes[s.parameter].numel() // shapes[s.parameter][s.axis] * len(s.indices) for s in slices)
        assert 0 < float(coupled.sizes[number]) <= most
    assert len(coupled.norms()) == len(network.units)


@pytest.mark.parametrize("name", ["vgg", "residual", "squeeze excite", "pad shortcut", *BUILT_IN])
def test_bn_l1_is_the_sum_over_scales_of_units(name):
    network = traced(name)
    layers = {f"{path}.weight": m for path, m in network.model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    entries = {(s.parameter, i) for u in network.units for s in u.slices for i in s.indices if s.parameter in layers}
    if not entries:
        with pytest.raises(InputError, match="no unit has a batch-norm scale"):
            PENALTIES("bn-l1")(network.model, network)
        return
    expected = sum(abs(float(layers[name].weight.detach()[i])) for name, i in entries)
    assert float(PENALTIES("bn-l1")(network.model, network)().detach()) == pytest.approx(expected, rel=1e-5)


def test_bn_l1_leaves_the_scales_of_other_channels_alone():
    network = traced("residual")
    few = replace(network, groups=tuple(replace(g, units=g.units[::2]) for g in network.groups))
    model = copy.deepcopy(network.model)
    PENALTIES("bn-l1")(model, few)().backward()
    moved = model.get_submodule("stem.1").weight.grad
    assert moved.tolist() == [1, 0, 1, 0, 1, 0]


def scales(model: nn.Module) -> float:
    return sum(float(m.weight.detach().abs().sum()) for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def how(**changes):
    settings = {"epochs": 2, "learning_rate": 0.05, "weight_decay": 0.0, "validation_fraction": 0.0}
    return Recovery(**(settings | changes))


def test_a_strong_bn_l1_makes_scales_small():
    plain = recover(tiny.trained(), DATA, how(), progress=False)
    slimmed = recover(tiny.trained(), DATA, how(penalty="bn-l1", penalty_weight=0.5), progress=False)
    assert scales(slimmed.model) < 0.8 * scales(plain.model)
    recorded = [epoch.penalty for epoch in slimmed.history]
    assert recorded[1] < recorded[0]
    assert [epoch.penalty for epoch in plain.history] == [None, None]


def test_the_penalty_adds_its_weighted_gradient(network, images, labels):
    """Oracle: one step of SGD with torch alone."""
    x, y = tiny.digits()[0][:64], tiny.digits()[1][:64]
    recovery = how(epochs=1, momentum=0.0, penalty="group-lasso", penalty_weight=0.03)
    found = recover(network.model, [(x, y)], recovery, progress=False)
    oracle = copy.deepcopy(network.model).train().to(memory_format=torch.channels_last)
    loss = nn.functional.cross_entropy(oracle(x.contiguous(memory_format=torch.channels_last)), y)
    term = PENALTIES("group-lasso")(oracle, network)()
    (loss + 0.03 * term).backward()
    with torch.no_grad():
        for parameter in oracle.parameters():
            parameter.sub_(0.05 * parameter.grad)
    for (name, one), other in zip(found.model.named_parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(one, other, msg=name)
    assert found.history[0].penalty == pytest.approx(float(term.detach()), rel=1e-6)
    assert found.history[0].train_loss == pytest.approx(float((loss + 0.03 * term).detach()), rel=1e-5)


def test_a_state_trains_like_its_module_and_only_units_that_are_left_are_penalised(network):
    units = [u for g in network.groups for u in g.units[::3]]
    state = remove(State.of(network), units)
    seen = []

    @penalty("seen", summary="")
    def sees(model: nn.Module, given: Network):
        seen.append(given)
        return PENALTIES("group-lasso")(model, given)

    one = recover(state, DATA, how(), penalty=sees, progress=False)
    other = recover(state.model, DATA, how(), penalty=sees, progress=False)
    dense = recover(State.of(network), DATA, how(epochs=1), penalty=sees, progress=False)
    assert same_run(one, other)
    left = len(network.units) - len(units)
    assert [len(given.units) for given in seen] == [left, left, len(network.units)]
    assert seen[2] is network
    assert dense.model is not network.model
    given = network.ignoring(["wide.0"])
    recover(network.model, DATA, how(epochs=1), penalty=sees, network=given, progress=False)
    assert seen[3] is given


@pytest.mark.parametrize("name", ["group-lasso", "bn-l1"])
def test_a_resumed_training_with_a_penalty_is_the_uninterrupted_one(tmp_path, name):
    recovery = how(epochs=3, penalty=name, penalty_weight=0.01, ema=0.5)
    run = partial(recover, tiny.trained(), DATA, recovery, checkpoint_interval_s=0, progress=False)
    assert same_run(run(), interrupted(run, tmp_path / "training", [(1, 2), (2, 5), (3, 1)]))


def test_another_penalty_does_not_resume(tmp_path):
    path = tmp_path / "training"
    recover(tiny.trained(), DATA, how(epochs=1), penalty=Sample, checkpoint=path, progress=False)
    resume = partial(recover, tiny.trained(), DATA, how(epochs=1), checkpoint=path, resume=True, progress=False)
    with pytest.raises(Exception, match="penalty was 'sample' and is None now"):
        resume()
    assert resume(penalty=Sample).history[0].penalty > 0


class Acts:
    """Tells when it is called."""

    def __init__(self, model, network):
        self.model, self.steps, self.calls = model, [], 0
        ACTED.append(self)

    def __call__(self):
        self.calls += 1
        return self.model.head.bias.square().sum()

    def after_step(self, step, steps):
        self.steps.append((step, steps))
        with torch.no_grad():
            self.model.head.bias.fill_(step)


ACTED: list[Acts] = []


def test_after_step_follows_every_step_and_its_changes_stay():
    ACTED.clear()
    found = recover(tiny.trained(), DATA, how(), penalty=Acts, progress=False)
    (acted,) = ACTED
    assert acted.steps == [(step, 10) for step in range(1, 11)]
    assert acted.calls == 10
    assert found.model.head.bias.tolist() == [10.0] * 10


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda p: p.sum() * float("nan"), r"penalty 'broken' is nan in epoch 1, step 1.*check_penalty"),
        (lambda p: p.sum() / 0 * 0, "penalty 'broken' is nan in epoch 1, step 1"),
        (lambda p: p.square(), r"shape \(10,\): it must be a tensor with one number"),
        (lambda p: 3.0, "gives float"),
    ],
)
def test_a_penalty_that_is_no_number_stops_the_training(value, message):
    @penalty("broken", summary="")
    def broken(model: nn.Module, network: Network):
        return lambda: value(model.head.bias)

    with pytest.raises(InputError, match=message):
        recover(tiny.trained(), DATA, how(), penalty=broken, progress=False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"penalty_weight": 0.1}, "penalty_weight is 0.1 and there is no penalty: choose one from group-lasso, bn-l1"),
        ({"penalty": "bn-l1", "penalty_weight": -1}, "penalty_weight is -1"),
        ({"penalty": "bn-l1", "penalty_weight": math.inf}, "penalty_weight is inf"),
        ({"penalty": "magic"}, "no penalty named 'magic': choose from group-lasso, bn-l1"),
    ],
)
def test_settings_of_a_penalty_that_cannot_be(fields, message):
    with pytest.raises(InputError, match=message):
        Recovery(**fields)


def test_what_does_not_fit_together_is_refused(network):
    named_one = how(penalty="bn-l1", penalty_weight=0.1)
    with pytest.raises(InputError, match="two penalties, 'bn-l1' by name and 'sample'"):
        recover(network.model, DATA, named_one, penalty=Sample, progress=False)
    with pytest.raises(InputError, match="the model is not the traced network"):
        recover(network.model, DATA, named_one, network=traced("vgg"), progress=False)
    with pytest.raises(InputError, match="a state has its dense network"):
        recover(State.of(network), DATA, how(distill=0.5), dense=network.model, progress=False)


def test_penalties_of_other_packages_are_found_by_name(monkeypatch):
    entry = EntryPoint("sample", "samples.sample_penalty:Sample", "whyprune.penalties")
    monkeypatch.setattr(named, "entry_points", lambda group: [entry] if group == "whyprune.penalties" else [])
    PENALTIES.__dict__.pop("_outside", None)
    try:
        assert list(PENALTIES) == ["group-lasso", "bn-l1", "sample"]
        found = recover(tiny.trained(), DATA, how(penalty="sample", penalty_weight=0.5), progress=False)
        plain = recover(tiny.trained(), DATA, how(), progress=False)
    finally:
        PENALTIES.__dict__.pop("_outside", None)
    traced_here = trace(tiny.trained(), tiny.digits()[0][:2])
    ends = [float(CoupledWeights(r.model, traced_here).norms().sum().detach()) for r in (found, plain)]
    assert ends[0] < ends[1]
