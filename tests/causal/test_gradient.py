"""Gradient estimators are exact where their expansion is, and are told apart from effects where it is not."""

import numpy as np
import pytest
import torch
from torch import nn

from causal.oracles import hooked
from structure.networks import conv_bn, randomised, traced
from structure.removal_property import fresh_batch
from tiny import batches, digits, trained
from whyprune.causal.exact import exact_effects
from whyprune.causal.gradient.estimator import Expansion, gradient, gradient_effects, gradient_first
from whyprune.causal.interventional_risk import interventional_risk
from whyprune.data.batches import Batch, as_batch
from whyprune.effects.outcomes import ClassLogit, LogitShift, as_outcome
from whyprune.errors import InputError
from whyprune.interventions.sensitivity import signs
from whyprune.scoring.contract import Question
from whyprune.structure.precise import in_double
from whyprune.structure.trace import trace

ALL_SIGNS = 4
"""Probes that make three classes exact."""


@pytest.fixture(scope="module")
def linear():
    """Nothing but linear operations behind the units: the second order is all there is."""
    model = nn.Sequential(
        *conv_bn(2, 7), nn.ReLU(), *conv_bn(7, 5), nn.AvgPool2d(2), nn.Conv2d(5, 4, 3), nn.Flatten(), nn.Linear(4, 3)
    )
    network = trace(randomised(model), torch.randn(2, 2, 6, 6))
    images = torch.randn(40, 2, 6, 6, generator=torch.Generator().manual_seed(3))
    return network, [Batch((images[:24],), {}), Batch((images[24:],), {})]


@pytest.mark.parametrize("curvature", ["fisher", "hessian"])
@pytest.mark.parametrize("intervention", ["zero", "mean", "closed-form", "optimal"])
def test_in_a_linear_network_the_second_order_is_the_exact_effect_of_every_image(linear, intervention, curvature):
    network, data = linear
    exact = exact_effects(network, data, intervention=intervention, per_image=True)
    question = Question(intervention=intervention, per_image=True)
    found = gradient_effects(network, data, question, Expansion(curvature=curvature, probes=ALL_SIGNS))
    np.testing.assert_allclose(found.per_image, exact.per_image, rtol=2e-3, atol=1e-5 * exact.per_image.max())
    np.testing.assert_allclose(found.standard_error, exact.standard_error, rtol=2e-3)
    assert exact.mean.max() > 0.01
    assert found.approximate
    assert found.estimand == "single"
    assert found.intervention == intervention


@pytest.mark.parametrize("intervention", ["zero", "mean"])
def test_in_a_linear_network_the_first_order_of_a_logit_is_its_exact_effect(linear, intervention):
    network, data = linear
    question = Question(outcome=ClassLogit(1), intervention=intervention, per_image=True)
    exact = exact_effects(network, data, outcome=ClassLogit(1), intervention=intervention, per_image=True)
    found = gradient_first(network, data, question)
    np.testing.assert_allclose(found.per_image, exact.per_image, atol=1e-4)
    assert (found.mean < 0).any()
    assert (found.mean > 0).any()
    absolute = gradient_effects(network, data, question, Expansion(order=1, absolute=True))
    np.testing.assert_allclose(absolute.mean, np.abs(exact.per_image).mean(axis=1), rtol=1e-3)
    assert absolute.estimand == "score"


def test_one_probe_is_unbiased(linear):
    network, data = linear
    one = data[0][slice(0, 1)]
    many = Batch((one.args[0].expand(3000, -1, -1, -1),), {})
    outcome = LogitShift(scale=1.0)
    expected = exact_effects(network, [data[0]], outcome=_Fixed(), per_image=True).per_image[:, 0]
    found = gradient_effects(network, [many], Question(outcome=_Fixed(), seed=1), Expansion(probes=1))
    assert outcome.name == found.outcome
    away = np.abs(found.mean - expected) / np.maximum(found.standard_error, 1e-9)
    assert away.max() < 4
    assert (found.standard_error > 0).all()


class _Fixed(LogitShift):
    """Squared distance as it is."""

    def fit(self, _dense):
        return LogitShift(scale=1.0)


@pytest.mark.parametrize(("probes", "classes"), [(4, 3), (16, 10), (1024, 1000)])
def test_as_many_probes_as_classes_measure_length_exactly(probes, classes):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, classes, generator=generator, dtype=torch.float64)
    found = (signs(probes, logits, generator) * logits).sum(dim=-1).square().mean(dim=0)
    torch.testing.assert_close(found, logits.square().sum(dim=-1))
    assert signs(probes, logits, generator).abs().eq(1).all()


class Smooth(nn.Module):
    """A residual stream that two layers read at different places, without kinks."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.first, self.second = nn.Conv2d(4, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        x = torch.tanh(x + self.second(torch.tanh(self.first(x))))
        return self.head(x.mean(dim=(2, 3)))


@pytest.mark.parametrize("outcome", ["cross-entropy", "margin", "logit-shift", ClassLogit(0)])
def test_true_curvature_is_the_second_derivative_of_the_real_intervention(outcome):
    """Against central differences of hooked networks, where two tensors hold the unit, in double precision."""
    model = randomised(Smooth())
    x = torch.randn(6, 2, 5, 5, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.arange(6) % 3
    network = in_double(trace(model, x[:2].float()))
    stem = [u.name for u in network.units if u.group == "stem"]
    batch = Batch((x,), {}, labels)
    with torch.no_grad():
        dense = network.model(x)
    harm = as_outcome(outcome).fit(dense)

    def towards_zero(t, unit):
        changed = hooked(
            network.model, {"first": 1, "head": 1}, [unit], lambda _, f, plain: plain[:, f] * (1 - t), batch
        )
        return harm(changed, dense, labels).numpy()

    step = 1e-3
    for order in (1, 2):
        question = Question(outcome=harm, units=tuple(stem), per_image=True)
        found = gradient_effects(
            network, [batch], question, Expansion(order=order, curvature="hessian", absolute=False)
        )
        expected = []
        for unit in range(4):
            up, down, here = (towards_zero(t, unit) for t in (step, -step, 0.0))
            first, second = (up - down) / (2 * step), (up - 2 * here + down) / step**2
            expected.append(first if order == 1 else first + second / 2)
        if order == 1 and outcome == "logit-shift":
            assert found.estimand == "score"
        else:
            np.testing.assert_allclose(found.per_image, np.stack(expected), atol=2e-5 * np.abs(expected).max() + 1e-6)


@pytest.mark.parametrize("name", ["separable", "depth multiplier", "functional depthwise", "vgg", "concat", "dicts"])
def test_directions_and_true_derivatives_agree_where_no_stream_runs_past_a_reader(name):
    """A depthwise convolution reads a unit and hands it on: that counts once."""
    network = traced(name)
    data = [fresh_batch(network, count=12)]
    found = [
        gradient_effects(network, data, Question(per_image=True), Expansion(curvature=c, probes=4)).per_image
        for c in ("fisher", "hessian")
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=2e-3, atol=2e-4 * found[1].max())


def test_the_second_order_ranks_units_of_a_trained_network_on_images_it_has_not_seen():
    """No claim about sizes: the expansion is local."""
    network = trace(trained(), digits()[0][:2])
    data = [as_batch(b) for b in batches(1000, 1256)]
    exact = exact_effects(network, data)
    found = gradient(network, data, Question())
    order = np.corrcoef(np.argsort(np.argsort(found.mean)), np.argsort(np.argsort(exact.mean)))[0, 1]
    assert order > 0.9
    assert found.forward_passes < exact.forward_passes


def test_a_budget_buys_images():
    network = trace(trained(), digits()[0][:2])
    data = [as_batch(b) for b in batches(1000, 1256)]
    found = gradient(network, data, Question(forward_passes=500.0))
    assert found.forward_passes <= 500
    assert found.samples == 50
    with pytest.raises(InputError, match="do not pay"):
        gradient(network, data, Question(forward_passes=5.0))
    with pytest.raises(InputError, match="do not pay"):
        gradient(network, data, Question(forward_passes=100.0, intervention="optimal"))


def test_what_has_no_derivative_is_refused():
    network = trace(trained(), digits()[0][:2])
    data = [as_batch(b) for b in batches(1000, 1064)]
    with pytest.raises(InputError, match="prediction-change has no gradient"):
        gradient(network, data, Question(outcome="prediction-change"))
    with pytest.raises(InputError, match="under 'carried'"):
        gradient_effects(network, data, Question(intervention="carried"))
    with pytest.raises(InputError, match="has no intervention 'carried'"):
        gradient(network, data, Question(intervention="carried"))
    with pytest.raises(InputError, match="no data"):
        gradient(network, [], Question())


def test_interventional_risk_is_least_at_its_constants(linear):
    """In a linear network c* is the best constant, so no constant does less harm than the risk says."""
    network, data = linear
    with pytest.raises(InputError, match="choose from closed-form"):
        interventional_risk(network, data, Question(intervention="zero"))
    risk = interventional_risk(network, data, Question())
    assert risk.intervention == "closed-form"
    expected = exact_effects(network, data, intervention="closed-form").mean
    full = gradient_effects(
        network, data, Question(intervention="closed-form"), Expansion(probes=ALL_SIGNS), method="interventional-risk"
    )
    np.testing.assert_allclose(full.mean, expected, rtol=1e-3)
    for other in ("zero", "mean"):
        assert (expected <= exact_effects(network, data, intervention=other).mean * 1.02 + 1e-6).all()
    assert np.corrcoef(risk.mean, expected)[0, 1] > 0.95


def test_first_order_of_the_logit_shift_is_the_length_of_the_change(linear):
    network, data = linear
    found = gradient_effects(network, data, Question(), Expansion(order=1, probes=ALL_SIGNS), method="gradient-first")
    exact = exact_effects(network, data, per_image=True)
    assert found.estimand == "score"
    np.testing.assert_allclose(found.mean, np.sqrt(exact.per_image).mean(axis=1), rtol=1e-3)
    assert np.isnan(found.standard_error).all()
