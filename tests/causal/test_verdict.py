"""What a joint effect means: held against answers that know nothing of their sample, for any outcome."""

import copy

import pytest
import torch
import torch.nn.functional as F

import tiny
from whyprune import ClassLogit, LogitShift, PredictionChange, trace
from whyprune.data.batches import Batch
from whyprune.effects.joint import joint_effect
from whyprune.effects.scale import unknowing
from whyprune.effects.verdict import level, said_of, verdict
from whyprune.results import JointEffect
from whyprune.structure.state import State

TEST = tiny.batches(1400, 1600)


def of_outputs(outputs, outcome):
    """What `unknowing` says of outputs, batch by batch."""
    batches = [Batch((torch.zeros(1, 1),), {}) for _ in outputs]
    return unknowing(outcome, batches, outputs)


@pytest.fixture(scope="module")
def network():
    return trace(tiny.trained(), TEST[0][0][:2])


def blind(network):
    """The network with a head that sees nothing: it gives the mean of its logits for every image."""
    model = copy.deepcopy(network.model)
    head = next(m for m in reversed(list(model.modules())) if isinstance(m, torch.nn.Linear))
    with torch.no_grad():
        mean = torch.cat([network.model(x) for x, _ in TEST]).mean(0)
        head.weight.zero_()
        head.bias.copy_(mean)
    return State(network, model, ())


def test_nobody_keeps_its_own_answer_and_sorted_data_is_no_matter():
    ones = torch.eye(12)
    found = of_outputs([ones], PredictionChange())
    assert found.another == 1.0  # all twelve answers differ, and each sample got another's
    halves = torch.eye(2).repeat_interleave(200, 0)
    found = of_outputs(list(halves.split(50)), PredictionChange())
    assert 0.4 < found.another < 0.6  # neighbours agree but for one; pairs at random agree half the time
    assert found.constant == 0.5


@pytest.mark.parametrize("sizes", [(40,), (1,) * 40, (7, 33)])
def test_one_constant_answer_is_at_1_in_shares_of_the_variance(sizes):
    outputs = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1
    found = of_outputs(list(outputs.split(sizes)), LogitShift().fit(outputs))
    assert found.constant == pytest.approx(1.0, rel=1e-5)
    assert 1.5 < found.another < 2.7  # two independent draws are two variances apart


def test_outputs_of_any_structure_and_of_several_lengths():
    def apart(output, dense, _):
        return (output["a"][0] - dense["a"][0]).square().flatten(1).mean(1)

    def drawn(length, seed):
        return {"a": (torch.randn(16, length, 3, generator=torch.Generator().manual_seed(seed)), "word"), "n": 3}

    found = of_outputs([drawn(4, 0), drawn(4, 1), drawn(6, 2)], apart)
    assert 0.8 < found.constant < 1.2
    assert 1.6 < found.another < 2.4


def test_a_single_sample_has_no_other():
    assert of_outputs([torch.ones(1, 3)], PredictionChange()).another is None


def test_an_outcome_that_does_not_see_the_sample_has_no_scale(network):
    joint = joint_effect(blind(network), TEST, outcome=ClassLogit(3))
    assert (joint.scale, joint.level) == (None, None)
    assert "no scale" in joint.sentence


def mine(logits, dense, _):
    return (F.softmax(logits, -1) - F.softmax(dense, -1)).abs().sum(-1)


@pytest.mark.parametrize("outcome", ["logit-shift", "cross-entropy", "margin", "prediction-change", mine])
def test_the_same_function_is_at_0_and_a_blind_one_is_lost_by_every_outcome(network, outcome):
    same = joint_effect(State.of(network), TEST, outcome=outcome)
    assert same.scale == pytest.approx(0, abs=1e-6)
    assert same.level == "hardly changed"
    lost = joint_effect(blind(network), TEST, outcome=outcome)
    assert lost.level == "lost"
    assert lost.mean == pytest.approx(lost.constant, rel=0.05)
    assert lost.sentence.startswith("Lost: ")


def test_levels_follow_the_harm_and_less_harm_than_none_is_no_loss():
    names = [level(harm, 2.0, 1.0) for harm in (0.0, 0.019, 0.021, 0.11, 0.76, 3.0)]
    assert names == ["hardly changed", "hardly changed", "changed", "much changed", "lost", "lost"]
    assert level(-5.0, 2.0, 1.0) == "much changed"
    assert level(float("nan"), 2.0, 1.0) == level(float("inf"), None, None) == "lost"
    assert "not finite" in said_of(float("nan"), 2.0, 1.0)
    assert "50% of the way to another sample's answer" in said_of(1.0, 2.0, 1.0)


def effect(measured, **more):
    return JointEffect(
        outcome="Y", predicted=None, measured=measured, interval=(0, 1), images=9, another=2.0, constant=1.0, **more
    )


@pytest.mark.parametrize(
    ("measured", "accuracies", "usable"),
    [
        (0.01, (None, None, None), True),
        (0.9, (None, None, None), False),
        (0.9, (90.0, 89.0, 10.0), True),  # scaled logits, say: the classes are right
        (0.9, (90.0, 45.0, 10.0), False),
        (0.3, (90.0, 15.0, 10.0), False),  # near chance, whatever the logits say
        (0.3, (95.0, 58.0, 50.0), False),  # chance is the commonest class's share, not one over the classes
        (0.3, (50.0, 50.0, 50.0), True),  # the dense network is at chance: accuracy tells nothing
    ],
)
def test_what_is_not_usable(measured, accuracies, usable):
    dense, pruned, chance = accuracies
    found = verdict(effect(measured), dense_percent=dense, pruned_percent=pruned, chance_percent=chance)
    assert found.usable is usable
    assert bool(found.advice) is not usable


def test_after_a_recovery_the_recovered_network_is_judged_and_the_advice_is_another():
    assert verdict(effect(0.9), recovered=True, after_recovery=0.05).usable
    found = verdict(effect(0.05), recovered=True, after_recovery=0.9, calibration=64, samples="samples")
    assert not found.usable
    assert any("longer" in what for what in found.advice)
    assert any("calibration samples: there were 64" in what for what in found.advice)


def test_where_nothing_tells_nothing_is_claimed():
    assert verdict(None).usable is None
    plain = JointEffect(outcome="Y", predicted=None, measured=0.9, interval=(0, 1), images=9)
    assert verdict(plain).usable is None


def test_harm_that_is_chance_makes_no_scale():
    """An outcome of labels that have nothing to do with the outputs: another answer is as good, up to chance."""

    def product(output, _, labels):
        return output[:, 0] * labels

    positive = 0
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        outputs = torch.randn(100, 1, generator=generator)
        labels = torch.randint(2, (100,), generator=generator) * 2 - 1
        found = unknowing(product, [Batch((outputs,), {}, labels)], [outputs])
        positive += found.another > 0
    assert positive <= 2
