"""`OutputShift` beside a second implementation, and every scorer on every kind of output."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from structure.outputs_of import KINDS, Headed, Returns, built, pictures
from whyprune.causal.exact import exact_effects
from whyprune.causal.gradient.estimator import Expansion, gradient_effects
from whyprune.data.batches import as_batches
from whyprune.effects.certificate import certify
from whyprune.effects.joint import joint_effect
from whyprune.effects.outcomes import OUTCOMES, as_outcome
from whyprune.effects.output_shift import OutputShift
from whyprune.errors import InputError, MissingDependencyError
from whyprune.repair import reconstruct, repair
from whyprune.scoring.contract import Question
from whyprune.scoring.estimate import estimate
from whyprune.scoring.registry import SCORERS
from whyprune.structure.remove import remove, zeroed
from whyprune.structure.state import State
from whyprune.structure.trace import trace

BATCH_AT = {"sequence first": 1}
SCORED = ("one logit", "boxes", "tuple")


def real(output, kind):
    """The floating tensors of an output, images first, one row of numbers each."""
    leaves = [
        t
        for t in pytree.tree_leaves(output)
        if isinstance(t, torch.Tensor) and (t.is_floating_point() or t.is_complex())
    ]
    leaves = [torch.view_as_real(t) if t.is_complex() else t for t in leaves if t.shape != (3,)]
    return [t.movedim(BATCH_AT.get(kind, 0), 0).reshape(12, -1).double().numpy() for t in leaves]


@pytest.mark.parametrize("kind", KINDS)
def test_effects_are_distances_over_variances(kind):
    network, x = trace(built(Returns(kind)), pictures(2)), pictures(12)
    found = exact_effects(network, [x], per_image=True)
    assert found.outcome == "output-shift"
    with torch.no_grad():
        dense = real(network.model(x), kind)
        for number, unit in enumerate(network.units):
            changed = real(zeroed(network, [unit])(x), kind)
            harm = [((c - d) ** 2).mean(1) / d.var(axis=0).mean() for c, d in zip(changed, dense, strict=True)]
            np.testing.assert_allclose(found.per_image[number], np.mean(harm, axis=0), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "wrap", [lambda y: (y,), lambda y: {"out": y}, lambda y: [{"deep": (y,)}], lambda y: {"logits": y, "k": 3}]
)
@pytest.mark.parametrize("kind", ["boxes", "logits"])
def test_how_an_output_is_wrapped_changes_nothing(kind, wrap):
    class Wrapped(nn.Module):
        def __init__(self, wrapped):
            super().__init__()
            self.inner, self.wrapped = Returns("tuple"), wrapped

        def forward(self, x):
            y = self.inner(x)[1] if kind == "logits" else self.inner(x)[0].flatten(2)
            return self.wrapped(y)

    plain, other = (trace(built(Wrapped(w)), pictures(2)) for w in (lambda y: y, wrap))
    one, two = (exact_effects(n, [pictures(12)], per_image=True) for n in (plain, other))
    assert one.outcome == two.outcome == ("logit-shift" if kind == "logits" else "output-shift")
    np.testing.assert_array_equal(one.per_image, two.per_image)


def test_heads_count_alike_whatever_their_size():
    small, large = (trace(built(Headed(factor)), pictures(2)) for factor in (1.0, 100.0))
    effects = [exact_effects(network, [pictures(12)]) for network in (small, large)]
    np.testing.assert_allclose(effects[0].mean, effects[1].mean, rtol=1e-4, atol=1e-6)
    of = effects[1].by_unit()
    for k in range(5):
        assert of[f"left:{k}"] == pytest.approx(of[f"right:{k}"], rel=1e-4)


def test_weights_choose_between_heads():
    network, x = trace(built(Headed()), pictures(2)), pictures(12)
    only = exact_effects(network, [x], outcome=OutputShift(weights={"1": 0})).by_unit()
    both = exact_effects(network, [x]).by_unit()
    three = exact_effects(network, [x], outcome=OutputShift(weights={"0": 3.0})).by_unit()
    assert only["right:0"] == 0
    assert only["left:0"] == pytest.approx(2 * both["left:0"], rel=1e-4)
    assert three["left:0"] == pytest.approx(1.5 * both["left:0"], rel=1e-4)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"boxes": 2.0}, "no output that counts is named 'boxes': the weights are for '0', '1'"),
        ({"0": -1.0}, "weight of output '0' is -1.0"),
        ({"0": 0, "1": 0}, "all outputs have weight 0"),
    ],
)
def test_weights_that_say_nothing_are_refused(weights, message):
    with pytest.raises(InputError, match=message):
        exact_effects(trace(built(Headed()), pictures(2)), [pictures(12)], outcome=OutputShift(weights=weights))


def test_a_constant_output_is_left_out_and_said_and_nan_is_an_error():
    rows = torch.cat([torch.randn(8, 3), torch.ones(8, 2)], dim=1)
    shift = OutputShift(parts=(("a", 0, 3), ("b", 3, 5))).fit(rows)
    moved = rows + torch.tensor([0.0, 0, 0, 9, 9])
    assert float(shift(moved, rows, None).sum()) == 0
    assert "'b' is the same" in shift.notes[0]
    with pytest.raises(InputError, match="same output for every"):
        OutputShift().fit(torch.ones(8, 2))
    for name in ("output-shift", "logit-shift"):
        with pytest.raises(InputError, match="NaN or infinite outputs on 1 of 8"):
            as_outcome(name).fit(rows.index_fill(0, torch.tensor([3]), float("nan")))


def test_gradients_are_exact_where_the_network_is_linear_behind_the_unit():
    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.a, self.b = nn.Conv2d(2, 5, 3), nn.Linear(80, 3), nn.Linear(80, 4)

        def forward(self, x):
            x = self.first(x).relu().flatten(1)
            return self.a(x), 50 * self.b(x)

    network, x = trace(built(Linear()), pictures(2)), pictures(12)
    found = gradient_effects(network, list(as_batches([x])), Question(), Expansion(probes=8))
    np.testing.assert_allclose(found.mean, exact_effects(network, [x]).mean, rtol=1e-3)


@pytest.mark.parametrize("kind", SCORED)
@pytest.mark.parametrize("name", list(SCORERS))
def test_every_scorer_judges_every_kind_of_output(name, kind):
    network = trace(built(Returns(kind)), pictures(2))
    facts = SCORERS(name).facts
    budget = None if facts.kind == "criterion" or name == "exact" else 1500
    options = {"method": name, "forward_passes": budget}
    if name == "concepts":  # explains the predicted class
        with pytest.raises(InputError, match="not one vector of logits"):
            estimate(network, pictures(32).split(16), **options)
        return
    try:
        found = estimate(network, pictures(32).split(16), **options)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    assert found.units == tuple(u.name for u in network.units)
    assert np.isfinite(found.mean).all()


@pytest.mark.parametrize("intervention", ["zero", "mean", "optimal", "closed-form", "resample", "carried"])
def test_every_intervention_has_effects_on_several_outputs(intervention):
    network = trace(built(Headed()), pictures(2))
    found = exact_effects(network, pictures(24).split(12), intervention=intervention)
    assert (np.isfinite(found.mean) & (found.mean > -1e-6)).all()
    if intervention in ("closed-form", "optimal"):
        mean = exact_effects(network, pictures(24).split(12), intervention="mean").mean.sum()
        assert found.mean.sum() <= 1.5 * mean


@pytest.mark.parametrize("kind", ["one number", "map", "dict"])
def test_a_users_outcome_is_shown_what_the_model_returns(kind):
    model, x = built(Returns(kind)), pictures(12)
    shown = []

    def distance(output, dense, labels):
        shown.append((output, dense))
        pairs = zip(pytree.tree_leaves(output), pytree.tree_leaves(dense), strict=True)
        return sum((a - b).square().flatten(1 if a.dim() > 1 else 0).reshape(len(a), -1).sum(1) for a, b in pairs)

    network = trace(model, pictures(2))
    found = exact_effects(network, [x], outcome=distance, per_image=True)
    for output, dense in shown:
        assert type(output) is type(dense) is type(model(x))
    unit = network.units[0]
    with torch.no_grad():
        truth = distance(zeroed(network, [unit])(x), model(x), None)
    np.testing.assert_allclose(found.per_image[0], truth.numpy(), rtol=1e-3, atol=1e-5)


def test_a_users_outcome_sees_outputs_that_do_not_count():
    network = trace(built(Headed(wrap=lambda a, b: {"logits": a, "other": b})), pictures(2))
    found = exact_effects(network, [pictures(12)], outcome=lambda o, d, y: (o["other"] - d["other"]).square().sum(1))
    of = found.by_unit()
    assert of["stem:0"] > 0
    assert of["left:0"] == 0


@pytest.mark.parametrize("name", [n for n in OUTCOMES if n != "output-shift"])
def test_outcomes_of_logits_refuse_other_outputs(name):
    network = trace(built(Returns("boxes")), pictures(2))
    with pytest.raises(InputError, match=r"'output' \(B, 36, 2\), not one vector of logits.*use 'output-shift'"):
        exact_effects(network, [pictures(12)], outcome=name)


@pytest.mark.parametrize("kind", ["one logit", "boxes", "tuple", "dataclass", "nested"])
def test_joint_effects_and_repairs_work_on_every_kind_of_output(kind):
    network, data = trace(built(Returns(kind)), pictures(2)), pictures(64).split(32)
    bare = remove(State.of(network), ["first:0", "second:1"])
    repaired = repair(bare, data)
    before, after, last = (joint_effect(s, data).mean for s in (bare, repaired, reconstruct(repaired, data)))
    assert 0 <= last <= after < before
    with pytest.raises(InputError, match="no predicted classes to certify"):
        certify(bare, data)
