"""Elimination as a criterion: brute-force least squares at a reader, and the order of response curves."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tiny
from structure.networks import traced
from structure.removal_property import fresh_batch
from whyprune.causal.response.curves import response_curves
from whyprune.causal.response.elimination import RIDGE
from whyprune.causal.response.elimination_scorer import elimination_scores
from whyprune.errors import InputError
from whyprune.scoring.contract import Question
from whyprune.scoring.registry import SCORERS
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace
from whyprune.testing import planted


def greedy(x, target, channels):
    """(order, losses as shares of the target's variance) by trying out every removal, with a fresh solve each time."""
    x, target = x - x.mean(axis=0), target - target.mean(axis=0)
    strength = RIDGE * (x**2).sum(axis=0).mean()

    def error(alive):
        own = x[:, np.concatenate([channels[c] for c in alive])] if alive else x[:, :0]
        weights = np.linalg.solve(own.T @ own + strength * np.eye(own.shape[1]), own.T @ target)
        return ((own @ weights - target) ** 2).sum() + strength * (weights**2).sum()

    alive, order, losses = list(range(len(channels))), [], []
    while alive:
        now = error(alive)
        errors = {c: error([a for a in alive if a != c]) for c in alive}
        gone = min(errors, key=errors.get)
        order.append(gone)
        losses.append((errors[gone] - now) / (target**2).sum())
        alive.remove(gone)
    return order, losses


def rising(losses):
    return np.maximum.accumulate(losses)


def small(*layers):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(*(make() for make in layers)).double().eval()


def test_on_a_linear_layer_it_is_greedy_least_squares():
    model = small(lambda: nn.Linear(6, 7), nn.ReLU, lambda: nn.Linear(7, 4))
    images = torch.randn(50, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = elimination_scores(trace(model, images[:2]), [images]).by_unit()
    with torch.no_grad():
        x, target = model[:2](images).numpy(), model(images).numpy()
    order, losses = greedy(x, target, [np.array([c]) for c in range(7)])
    np.testing.assert_allclose([found[f"0:{c}"] for c in order], rising(losses), rtol=1e-4, atol=1e-8)
    assert sorted(range(7), key=lambda c: found[f"0:{c}"]) == order


def test_on_a_convolution_a_channel_is_its_kernels_together():
    model = small(
        lambda: nn.Conv2d(2, 5, 3), nn.ReLU, lambda: nn.Conv2d(5, 3, 3), lambda: nn.AdaptiveAvgPool2d(1), nn.Flatten
    )
    images = torch.randn(12, 2, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    network = trace(model, images[:2])
    found = elimination_scores(network, [images]).by_unit()
    with torch.no_grad():
        x = F.unfold(model[:2](images), 3).transpose(1, 2).flatten(0, 1).numpy()
        target = model[:3](images).flatten(2).transpose(1, 2).flatten(0, 1).numpy()
    order, losses = greedy(x, target, [np.arange(9 * c, 9 * c + 9) for c in range(5)])
    np.testing.assert_allclose([found[f"0:{c}"] for c in order], rising(losses), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("gone", [[], ["inner.0:2", "stem.0:1", "wide.0:3", "wide.0:4"]])
def test_units_go_in_the_order_of_response_curves(gone):
    state = remove(State.of(trace(tiny.trained(), tiny.digits()[0][:2])), gone)
    fit, measure = tiny.batches(0, 192), tiny.batches(192, 256)
    found, curves = elimination_scores(state, fit).by_unit(), response_curves(state, fit, measure)
    assert set(curves) == {"inner.0", "stem.0", "wide.0"}
    for name, curve in curves.items():
        order = sorted((unit for unit in found if unit.startswith(f"{name}:")), key=found.get)
        assert order[: len(curve.order)] == list(curve.order)


@pytest.mark.parametrize("readers", [1, 2])
def test_what_others_can_carry_is_free_and_what_nobody_can_is_not(readers):
    case = planted.case(readers)
    found = elimination_scores(case.network, [case.images])
    pairs = [(planted.COPY, planted.OTHER_COPY), (planted.PLUS, planted.MINUS), (planted.BYSTANDER, planted.ORIGINAL)]
    copies = [min(found[case.unit(a)], found[case.unit(b)]) for a, b in pairs]
    assert found[case.unit(planted.DEAD)] < 1e-5  # the ridge alone
    assert max(copies) < 0.01 * found[case.unit(planted.PLAIN)]
    assert max(found[case.unit(planted.COPY)], found[case.unit(planted.OTHER_COPY)]) > 10 * max(copies)


@pytest.mark.parametrize(
    "name", ["grouped", "concat", "separable", "flatten", "operation: layer norm", "squeeze excite"]
)
def test_every_unit_that_is_read_has_a_finite_score(name):
    network = traced(name)
    found = elimination_scores(network, [fresh_batch(network)])
    assert np.isfinite(found.mean).all()
    assert (found.mean >= 0).all()
    assert (found.mean > 0).mean() > 0.5


def test_units_that_are_asked_for_are_judged_beside_all_of_their_group():
    network = trace(tiny.trained(), tiny.digits()[0][:2])
    batches = tiny.batches(0, 128)
    whole = elimination_scores(network, batches).by_unit()
    few = elimination_scores(network, batches, units=["inner.0:4", "stem.0:0"]).by_unit()
    assert few == pytest.approx({name: whole[name] for name in few}, rel=1e-6)


def test_it_says_what_it_lacks():
    network = traced("residual")
    with pytest.raises(InputError, match="no data"):
        elimination_scores(network, [])
    with pytest.raises(InputError, match="do not pay"):
        SCORERS("elimination")(network, [fresh_batch(network)], Question(forward_passes=2))
