"""Every estimator on networks whose truth is known."""

import numpy as np
import pytest
import torch

from whyprune.causal.exact import exact_effects
from whyprune.causal.response.curves import response_curves
from whyprune.effects.effects import Effects
from whyprune.effects.joint import joint_effect
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.testing import planted
from whyprune.testing.planted import (
    BYSTANDER,
    COPY,
    DEAD,
    MINUS,
    ONE_CLASS,
    ORIGINAL,
    OTHER_COPY,
    PLAIN,
    PLUS,
    SPECIAL,
)

NOTHING = 1e-5


@pytest.fixture(scope="module", params=[1, 2], ids=["one reader", "two readers"])
def case(request):
    return planted.case(request.param)


def effects(case, intervention="zero", **options) -> np.ndarray:
    return measured(case, intervention, **options).mean


def measured(case, intervention="zero", **options) -> Effects:
    units = [case.unit(k) for k in range(planted.UNITS)]
    data = [(case.images, case.labels)]
    return exact_effects(case.network, data, intervention=intervention, units=units, **options)


def joint(case, *indices) -> float:
    units = case.network.select([case.unit(k) for k in indices])
    return joint_effect(remove(State.of(case.network), units), [case.images]).mean


def test_copies_have_equal_single_effects_and_more_than_twice_as_large_a_joint_effect(case):
    single = effects(case)
    assert single[COPY] == pytest.approx(single[OTHER_COPY], rel=1e-4)
    assert joint(case, COPY, OTHER_COPY) > 2 * single[COPY] > 0


def test_each_copy_is_carried_by_the_other_until_that_one_is_gone(case):
    single = effects(case, "carried")
    assert single[COPY] < NOTHING
    assert single[OTHER_COPY] < NOTHING
    gone = case.network.select([case.unit(OTHER_COPY)])
    alone = exact_effects(
        remove(State.of(case.network), gone),
        [case.images],
        intervention="carried",
        units=[case.unit(COPY)],
    )
    assert alone[case.unit(COPY)] > 100 * NOTHING


def test_a_cancelling_pair_matters_alone_and_not_together(case):
    single = effects(case)
    assert single[PLUS] > 100 * NOTHING
    assert single[MINUS] > 100 * NOTHING
    assert abs(joint(case, PLUS, MINUS)) < NOTHING


@pytest.mark.parametrize("intervention", ["zero", "mean", "resample", "carried"])
def test_a_dead_unit_and_a_bystander_have_no_effect_under_any_intervention(case, intervention):
    found = measured(case, intervention, per_image=True)
    assert (found.per_image[DEAD] == 0).all()
    assert found.standard_error[DEAD] == 0
    assert np.abs(found.per_image[BYSTANDER]).max() < NOTHING


@torch.no_grad()
def test_the_bystander_is_correlated_with_the_output_nonetheless(case):
    activity = torch.relu(case.network.model.units(case.images)).mean(dim=(2, 3))[:, BYSTANDER]
    logits = case.network.model(case.images)
    correlation = torch.corrcoef(torch.cat([activity[None], logits.T]))[0, 1:].abs().max()
    assert float(correlation) > 0.2
    assert effects(case)[ORIGINAL] > 100 * NOTHING


def test_the_unit_of_one_class_has_an_effect_on_its_images_only(case):
    by_class = measured(case, per_image=True).by_class(case.labels.numpy())
    for label, effect in by_class.items():
        assert effect[PLAIN] > 100 * NOTHING
        if label == SPECIAL:
            assert effect[ONE_CLASS] > 100 * NOTHING
        else:
            assert effect[ONE_CLASS] == 0


def test_the_response_curve_gives_what_others_carry_away_for_free_and_nothing_else(case):
    """Five of nine can go: the pair, which cancels, the dead unit, one of the copies, the bystander or its original."""
    curve = response_curves(case.network, [case.images[:64]], [case.images[64:]])["units"]
    free = {int(name.rpartition(":")[2]) for name in curve.order[:5]}
    assert {PLUS, MINUS, DEAD} < free
    assert len(free & {COPY, OTHER_COPY}) == len(free & {BYSTANDER, ORIGINAL}) == 1
    height = dict(zip(curve.removed.tolist(), curve.effect.tolist(), strict=True))
    assert max(abs(effect) for count, effect in height.items() if count <= 5) < 0.002
    assert min(effect for count, effect in height.items() if count > 5) > 0.02
