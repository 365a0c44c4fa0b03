"""Effect profiles against forward passes of the whole network, and the sketch of wide ones."""

import numpy as np
import pytest
import torch

import whyprune.causal.profiles as module
from whyprune.causal.exact import exact_effects
from whyprune.causal.profiles import effect_profiles
from whyprune.effects.outcomes import centred
from whyprune.errors import InputError
from whyprune.interventions.worlds import Worlds
from whyprune.scoring.contract import Question
from whyprune.scoring.registry import SCORERS
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.testing import planted


def pruned(case, *units):
    return remove(State.of(case.network), [case.unit(k) for k in units])


@pytest.mark.parametrize("gone", [(), (planted.COPY, planted.PLAIN)])
@pytest.mark.parametrize("intervention", ["zero", "mean"])
def test_a_profile_is_what_the_whole_network_changes_under_the_intervention(gone, intervention):
    case = planted.case(2)
    state = pruned(case, *gone)
    found = effect_profiles(state, [case.batch], intervention=intervention)
    worlds = Worlds(state, [case.batch], intervention=intervention)
    images = np.arange(worlds.images)
    plain, scale = centred(worlds.plain), worlds.outcome.scale
    for row, vector in zip(np.eye(len(worlds.units), dtype=bool), found.vectors, strict=True):
        changed = worlds.logits(np.tile(row, (worlds.images, 1)), images)
        expected = (centred(changed) - plain) / scale**0.5
        np.testing.assert_allclose(vector.reshape(expected.shape), expected.numpy(), atol=2e-5)
    assert (found.images, found.columns, found.sketched) == (96, planted.CLASSES, False)


def test_its_mean_squared_length_is_the_exact_effect_in_batches_of_any_size():
    case = planted.case(1)
    effects = exact_effects(case.network, [case.batch])
    for size in (96, 20):
        found = effect_profiles(case.network, [(x,) for x in case.images.split(size)])
        np.testing.assert_allclose(found.effects, effects.mean, rtol=1e-4, atol=1e-8)
    assert found.forward_passes == effects.forward_passes


def test_a_unit_of_one_class_moves_images_of_that_class_alone():
    case = planted.case(1)
    found = effect_profiles(case.network, [case.batch], units=[case.unit(planted.ONE_CLASS)])
    moved = np.abs(found.vectors.reshape(96, -1)).max(axis=1)
    special = case.labels.numpy() == planted.SPECIAL
    assert moved[~special].max() < 1e-6
    assert moved[special].min() > 1e-3


def test_an_outcome_without_directions_is_that_of_the_default_and_said_to_be():
    case = planted.case(1)
    found = effect_profiles(case.network, [case.batch], outcome="cross-entropy")
    assert found.outcome == "logit-shift"
    np.testing.assert_array_equal(found.vectors, effect_profiles(case.network, [case.batch]).vectors)


def test_wide_profiles_are_sketched_so_that_distances_stay(monkeypatch):
    case = planted.case(1, images=384)
    whole = effect_profiles(case.network, [case.batch])
    monkeypatch.setattr(module, "MOST_BYTES", 4 * len(whole.units) * 384 * 2)
    found = effect_profiles(case.network, [case.batch])
    assert found.sketched
    assert found.columns == 2
    first, second = (v[planted.COPY] - v[planted.OTHER_COPY] for v in (whole.vectors, found.vectors))
    assert np.abs(first).max() < 1e-6
    assert np.abs(second).max() < 1e-6
    alive = whole.effects > 1e-6
    np.testing.assert_allclose(found.effects[alive], whole.effects[alive], rtol=0.3)
    np.testing.assert_allclose(found.effects[~alive], 0, atol=1e-6)
    in_parts = effect_profiles(case.network, [(x,) for x in case.images.split(100)])
    np.testing.assert_allclose(in_parts.vectors, found.vectors, atol=1e-5)


def test_a_budget_of_passes_is_kept_to_or_refused():
    case, scorer = planted.case(1), SCORERS("causal-feature-clusters")
    whole = scorer(case.network, [case.batch], Question())
    part = scorer(case.network, [case.batch], Question(forward_passes=whole.forward_passes / 3))
    assert 0 < part.forward_passes <= whole.forward_passes / 3
    assert part.samples < whole.samples
    with pytest.raises(InputError, match="do not pay for"):
        scorer(case.network, [case.batch], Question(forward_passes=1))
    with pytest.raises(InputError, match="no data"):
        effect_profiles(case.network, [])


def test_units_that_are_asked_for_are_judged_with_their_whole_group():
    case, scorer = planted.case(1), SCORERS("causal-feature-clusters")
    whole = scorer(case.network, [case.batch], Question()).by_unit()
    names = (case.unit(planted.ONE_CLASS), case.unit(planted.DEAD))
    part = scorer(case.network, [case.batch], Question(units=names))
    assert part.by_unit() == pytest.approx({name: whole[name] for name in names})
    assert torch.equal(case.images, planted.case(1).images)
