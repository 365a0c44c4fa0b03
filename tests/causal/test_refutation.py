"""Refutation can fail: judgements that are wrong by construction are refuted, true effects stand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tiny import batches, trained
from whyprune.causal.exact import exact_effects
from whyprune.causal.refutation import refute
from whyprune.causal.refutation.controls import with_copy
from whyprune.causal.refutation.subject import Subject, agreement, sampled
from whyprune.causal.refutation.suite import prediction
from whyprune.criteria import magnitude
from whyprune.effects.effects import from_scores
from whyprune.errors import InputError
from whyprune.results import JointEffect
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace

IMAGES = batches(1000, 1128)


@pytest.fixture(scope="module")
def network():
    return trace(trained(), IMAGES[0][0][:2])


def truly(state, data, units):
    return exact_effects(state, data, units=units)


def by_name(state, data, units):
    """Judges a unit by a hash of its name: sure of itself, and blind."""
    scores = np.random.default_rng(0).random(len(state.units))
    return from_scores(state.units, scores, method="blind", forward_passes=1).only(units)


def by_weights(state, data, units):
    return magnitude(state, order=2).only(units)


def by_activity(state, data, units):
    """Scores that depend on the images alone: the order changes from one set of images to the next."""
    seed = int(abs(float(sum(b.args[0].double().sum() for b in data))) * 1e3) % 2**32
    scores = np.random.default_rng(seed).random(len(state.units))
    return from_scores(state.units, scores, method="restless", forward_passes=1).only(units)


def inverted(state, data, units):
    found = truly(state, data, units)
    return replace(found, mean=-found.mean, bounds=None)


def outcomes(network, judge, **options):
    return {r.name: r.passed for r in refute(network, IMAGES, judge, images=128, **options)}


def test_true_effects_stand_controls_and_placebo(network):
    found = outcomes(network, truly)
    for name in ("dead unit", "planted duplicate", "permuted units", "randomised weights"):
        assert found[name] is True, name


def test_a_blind_judgement_is_refuted_by_controls_placebo_and_randomised_weights(network):
    found = outcomes(network, by_name)
    assert found["permuted units"] is False
    assert found["planted duplicate"] is False
    assert found["randomised weights"] is False
    assert found["split halves"] is True  # reliable and wrong: reliability alone says nothing


def test_a_judgement_by_chance_is_refuted_by_its_own_halves(network):
    found = outcomes(network, by_activity)
    assert found["split halves"] is False
    assert found["shifted images"] is False


def test_an_inverted_judgement_is_refuted_by_the_placebo_only_where_it_should_be(network):
    found = outcomes(network, inverted)
    assert found["permuted units"] is False
    assert found["dead unit"] is True  # a dead unit's effect is zero with either sign


def test_weights_alone_cannot_tell_a_unit_that_is_cut_off_from_one_that_is_small(network):
    assert outcomes(network, by_weights)["dead unit"] is True


def test_sentences_say_what_was_found(network):
    for found in refute(network, IMAGES, truly, images=128):
        assert found.sentence.endswith(".")
        assert found.value is None or np.isfinite(found.value)


def test_a_copy_leaves_the_other_units_what_they_were(network):
    """Copy and original together are read as the original was: the network without the twin is the same."""
    first, second = network.group("inner.0").units[:2]
    subject = Subject(State.of(network), truly, (), None, (first, second), exact_effects(network, IMAGES), 0)
    model = with_copy(subject, first, second).model
    x = IMAGES[0][0]
    with torch.no_grad():
        expected = trained()
        state = {k: v.clone() for k, v in expected.state_dict().items()}
        state["outer.0.weight"][:, second.index] = 0
        twin = type(expected)().eval()
        twin.load_state_dict(state)
        torch.testing.assert_close(model(x), twin(x), rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def state(network):
    """Half of every group is gone."""
    return remove(State.of(network), [u for g in network.groups for u in g.units[::2]])


def test_in_a_state_true_effects_stand_and_wrong_ones_fall(state):
    right, blind = outcomes(state, truly), outcomes(state, by_name)
    for name in ("dead unit", "planted duplicate", "permuted units", "randomised weights"):
        assert right[name] is True, name
    assert blind["permuted units"] is False
    assert blind["randomised weights"] is False


def test_a_copy_in_a_state_leaves_the_other_units_what_they_were(state):
    first, second = [u for u in state.units if u.group == "inner.0"][1:3]
    subject = Subject(state, truly, (), None, (first, second), exact_effects(state, IMAGES), 0)
    found = with_copy(subject, first, second)
    x = IMAGES[0][0]
    assert found.removed == state.removed
    with torch.no_grad():
        torch.testing.assert_close(found.model(x), remove(state, [second]).model(x), rtol=0, atol=1e-5)


def test_samples_of_a_state_are_there(state):
    assert set(sampled(state, 100, 0)) == set(state.units)
    for seed in range(20):
        groups = [u.group for u in sampled(state, 4, seed)]
        assert all(groups.count(g) >= 2 for g in groups)


def test_samples_have_an_order_in_every_group(network):
    for count in (4, 8, 12, 100):
        chosen = sampled(network, count, 0)
        groups = [u.group for u in chosen]
        assert all(groups.count(g) >= 2 for g in groups)
        assert len(set(chosen)) == len(chosen)
    assert len(sampled(network, 100, 0)) == len(network.units)


def test_agreement_is_within_groups(network):
    """Effects that only tell the groups apart do not agree with anything."""
    truth = exact_effects(network, IMAGES)
    order = {g.name: k for k, g in enumerate(network.groups)}
    between = replace(truth, mean=np.array([float(order[g]) for g in truth.groups]))
    assert np.isnan(agreement(truth, between))
    assert agreement(truth, truth) == pytest.approx(1)


@pytest.mark.parametrize(("predicted", "passed"), [(0.2, True), (0.1, True), (0.05, False), (None, None)])
def test_the_measured_joint_effect_may_not_be_above_the_prediction(predicted, passed):
    joint = JointEffect(outcome="logit-shift", predicted=predicted, measured=0.15, interval=(0.1, 0.2), images=9)
    assert prediction(joint).passed is passed


def test_unusable_requests_are_refused(network):
    with pytest.raises(InputError, match="at least 8"):
        refute(network, batches(0, 7), truly)
