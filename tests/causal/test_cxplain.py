"""The explanation model predicts effects on images it has not seen, with intervals that hold."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from tiny import batches, digits, trained
from whyprune.causal.cxplain import Cxplain, Training, explain, predicted_effects
from whyprune.causal.cxplain.explainer import train
from whyprune.causal.exact import exact_effects
from whyprune.data.batches import as_batch
from whyprune.errors import InputError
from whyprune.scoring.contract import Question
from whyprune.scoring.registry import SCORERS
from whyprune.structure.trace import trace
from whyprune.testing import planted

FIRST, LAST, NEW = 1000, 1797, 1300
QUICK = Cxplain(training=Training(models=5, epochs=40))


@cache
def tiny():
    return trace(trained(), digits()[0][:2])


@cache
def truth(outcome):
    """Exact individual effects (units, images) on images FIRST..LAST."""
    return exact_effects(tiny(), batches(FIRST, LAST), outcome=outcome, per_image=True).per_image.astype(float)


@cache
def explained(outcome, seed=0):
    return explain(tiny(), batches(FIRST, NEW), outcome=outcome, seed=seed)


@pytest.mark.parametrize("outcome", ["logit-shift", "cross-entropy"])
def test_effects_on_new_images_rank_better_than_the_same_effects_for_all(outcome):
    unlabelled = [images for images, _ in batches(NEW, LAST)]
    found = explained(outcome).predict(unlabelled).effects
    true = truth(outcome)[:, NEW - FIRST :]
    constant = truth(outcome)[:, : NEW - FIRST].mean(axis=1)
    columns = range(0, true.shape[1], 5)
    ours = np.array([spearmanr(found[:, i], true[:, i])[0] for i in columns])
    theirs = np.array([spearmanr(constant, true[:, i])[0] for i in columns])
    gain = ours - theirs
    assert gain.mean() > 4 * gain.std() / np.sqrt(len(gain))
    assert np.square(found - true).mean() < np.square(constant[:, None] - true).mean()


@pytest.mark.parametrize("outcome", ["logit-shift", "cross-entropy"])
def test_intervals_hold_the_effects_on_new_images_and_the_ensemble_s_own_do_not(outcome):
    true = truth(outcome)[:, NEW - FIRST :]
    covered, bare = [], []
    for seed in (0, 1):
        model = explained(outcome, seed)
        found = model.predict(batches(NEW, LAST))
        covered.append(((found.low <= true) & (true <= found.high)).mean())
        reach = (found.high - found.low) / 2 / model.factor
        bare.append((np.abs(found.effects - true) <= reach).mean())
    error = 3 * np.sqrt(0.95 * 0.05 / (2 * model.residuals.shape[1]))  # as if the units of an image were all one
    assert 0.95 - error < np.mean(covered) < min(0.95 + error, 0.999)
    assert np.mean(bare) < 0.8


def test_intervals_of_mean_effects_hold_the_mean_over_all_images():
    everything = truth("logit-shift").mean(axis=1)
    rng = np.random.default_rng(0)
    images, labels = digits()
    hits = []
    for seed in range(8):
        drawn = torch.from_numpy(rng.choice(np.arange(FIRST, LAST), 120, replace=False))
        data = [as_batch((images[drawn], labels[drawn]))]
        found = predicted_effects(tiny(), data, Question(seed=seed), QUICK)
        low, high = found.interval
        hits.append((low <= everything) & (everything <= high))
    assert found.approximate
    assert np.mean(hits) > 0.92


def synthetic(seed, count=400, units=6):
    """Features decide shares and a sign; how large all effects are is partly chance."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, units))
    scale = np.exp(rng.normal(size=(count, 1)))
    effects = scale * np.exp(features)
    effects[:, 0] *= np.sign(features[:, 1])
    return features, effects


def test_signs_are_learnt_and_sums_are_right_on_average():
    model = train(*synthetic(0), Training(), 0)
    features, effects = synthetic(1, 4000)
    found = np.median(model.predict(features), axis=0)
    clear = np.abs(features[:, 1]) > 0.3
    assert (np.sign(found[clear, 0]) == np.sign(effects[clear, 0])).mean() > 0.9
    assert (found[:, 1:] > 0).mean() > 0.99
    assert found[:, 1:].sum() == pytest.approx(effects[:, 1:].sum(), rel=0.25)  # exp(-1/2) = 0.6 without smearing


def test_effects_that_are_never_negative_are_never_predicted_negative():
    features, effects = synthetic(0)
    model = train(features, np.abs(effects), Training(epochs=5), 0)
    assert (model.predict(features) > 0).all()


def test_the_order_of_units_does_not_matter():
    """To the arithmetic it does not at all; to the random initial weights no more than another seed does."""
    features, effects = synthetic(2)
    order = np.random.default_rng(3).permutation(effects.shape[1])
    new = synthetic(4)[0]
    one = np.median(train(features, effects, Training(), 0).predict(new), axis=0)
    other = np.median(train(features[:, order], effects[:, order], Training(), 0).predict(new[:, order]), axis=0)
    seed = np.median(train(features, effects, Training(), 1).predict(new), axis=0)
    moved, drawn = np.abs(other - one[:, order]).mean(), np.abs(seed - one).mean()
    assert moved < 1.5 * drawn
    case = planted.case(1)
    names = [case.unit(k) for k in (8, 0, 4)]
    forth, back = (
        predicted_effects(case.network, [case.batch], Question(units=tuple(u)), QUICK) for u in (names, names[::-1])
    )
    assert forth.by_unit() == back.by_unit()


def test_images_on_which_nothing_has_an_effect_are_no_trouble():
    case = planted.case(1)
    found = predicted_effects(case.network, [case.batch], Question(outcome="prediction-change"), QUICK)
    assert np.isfinite(found.mean).all()
    assert found[case.unit(planted.PLAIN)] > found[case.unit(planted.DEAD)]


def test_a_budget_is_spent_on_interventions_and_no_more():
    case = planted.case(1)
    for budget in (300.0, 500.0):
        found = SCORERS("cxplain")(case.network, [case.batch], Question(forward_passes=budget))
        assert budget / 2 < found.forward_passes <= budget
        assert found.samples == 96  # images that were not intervened on have predictions as well


def test_unusable_requests_are_refused():
    with pytest.raises(InputError, match="at least 12"):
        explain(tiny(), batches(0, 8))
    with pytest.raises(InputError, match="needs labels"):
        explain(tiny(), [digits()[0][:32]], outcome="cross-entropy")
    with pytest.raises(InputError, match="there is no data"):
        explained("logit-shift").predict([])
