"""The contract of an estimator, as a check that anybody can run on their own."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from whyprune.effects.effects import ESTIMANDS, Effects
from whyprune.scoring.contract import Estimator, Question
from whyprune.testing import planted

ROUNDING = 1e-4


def check_estimator(estimate: Estimator, *, question: Question | None = None, images: int = 96) -> Effects:
    """Runs an estimator on a small network with planted truth and checks what every estimator must keep.

    The same seed gives the same numbers; the network, its weights and torch's generator are left alone; units are named
    once each, in the network's order, with finite numbers; the result says which estimand it is, which
    intervention and what it cost; intervals contain the mean; individual effects, if kept, average to it; and a dead
    unit is not said to matter: an effect's interval contains 0, a score is the smallest.

    Args:
        estimate: the estimator.
        question: what to ask; default: everything by default, with individual effects.
        images: how many images it gets.

    Returns:
        What it estimated.

    Raises:
        AssertionError: the contract is broken; the message says where.
    """
    case = planted.case(1, images)
    batches = [case.batch]
    question = question or Question(per_image=True)
    before = copy.deepcopy(case.network.model.state_dict())
    generator = torch.get_rng_state()
    found, again = estimate(case.network, batches, question), estimate(case.network, batches, question)
    assert torch.equal(generator, torch.get_rng_state()), "torch's global generator was used: draw from question.seed"
    for name, tensor in case.network.model.state_dict().items():
        assert torch.equal(tensor, before[name]), f"the network's {name} was changed"
    assert found.mean.tolist() == again.mean.tolist(), "the same seed gave other numbers"
    _check_shape(found, [u.name for u in case.network.units])
    _check_numbers(found)
    _check_dead(found, case.unit(planted.DEAD))
    some = (case.unit(planted.PLAIN), case.unit(planted.DEAD))
    few = estimate(case.network, batches, replace(question, units=some))
    assert set(few.units) == set(some), f"asked for units {some}, got {few.units}"
    return found


def _check_shape(found: Effects, names: Sequence[str]) -> None:
    assert list(found.units) == list(names), "units are not those of the network, each once, in its order"
    assert len(found.groups) == len(found.mean) == len(found.standard_error) == len(names)
    assert found.estimand in ESTIMANDS
    assert found.method, "the result does not name its method"
    assert found.estimand == "score" or found.intervention, "an effect without the value of its intervention"
    assert found.estimand == "score" or found.outcome, "an effect without its outcome"
    assert found.estimand != "context" or 0 < found.rate < 1, "a context effect without its rate"
    assert found.forward_passes > 0, "the cost in forward passes is not counted"


def _check_numbers(found: Effects) -> None:
    assert np.isfinite(found.mean).all(), "effects that are not finite"
    low, high = found.interval
    stated = np.isfinite(low) & np.isfinite(high)
    assert (low[stated] <= found.mean[stated] + ROUNDING).all(), "an interval above its mean"
    assert (found.mean[stated] <= high[stated] + ROUNDING).all(), "an interval below its mean"
    if found.estimand != "score" and not found.approximate:
        assert stated.all(), "an unbiased estimate without an interval"
    if found.per_image is not None:
        assert found.per_image.shape[0] == len(found.units)


def _check_dead(found: Effects, dead: str) -> None:
    index = found.units.index(dead)
    low, high = (bound[index] for bound in found.interval)
    if found.estimand == "score" or not np.isfinite(low):
        assert found.mean[index] <= found.mean.min() + ROUNDING, "a dead unit is ranked above another"
    else:
        assert low - ROUNDING <= 0 <= high + ROUNDING, "a dead unit is said to have an effect"
