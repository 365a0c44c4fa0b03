import numpy as np
import pytest
from scipy import stats

from causal.oracles import logits
from structure.networks import traced
from structure.removal_property import fresh_batch
from whyprune.effects.joint import joint_effect
from whyprune.effects.outcomes import LogitShift
from whyprune.errors import InputError
from whyprune.structure.remove import masked, remove
from whyprune.structure.state import State


def test_the_joint_effect_is_that_of_masking_the_whole_set():
    network = traced("projection")
    batch = fresh_batch(network, count=40)
    units = network.units[::2]
    joint = joint_effect(remove(State.of(network), units), [batch[slice(0, 7)], batch[slice(7, 40)]])
    dense = logits(network.model, batch)
    harm = LogitShift().fit(dense)(logits(masked(network, units), batch), dense, None).double().numpy()
    assert joint.mean == pytest.approx(harm.mean(), rel=1e-4)
    expected = stats.t.interval(0.95, 39, loc=harm.mean(), scale=stats.sem(harm))
    np.testing.assert_allclose(joint.interval, expected, rtol=1e-4)
    assert (joint.images, joint.outcome) == (40, "logit-shift")


def test_removing_nothing_has_no_effect_and_reference_images_fix_the_scale():
    network = traced("projection")
    batch, reference = fresh_batch(network, count=20), fresh_batch(network, count=20, seed=1)
    assert joint_effect(State.of(network), [batch]).mean == 0
    units = network.units[:4]
    pruned = remove(State.of(network), units)
    own, other = (joint_effect(pruned, [batch], reference=r).mean for r in (None, [reference]))
    scales = [LogitShift().fit(logits(network.model, b)).scale for b in (batch, reference)]
    assert own * scales[0] == pytest.approx(other * scales[1], rel=1e-5)


def test_an_interval_needs_two_images():
    network = traced("projection")
    with pytest.raises(InputError, match="at least 2 images"):
        joint_effect(State.of(network), [fresh_batch(network, count=1)])
