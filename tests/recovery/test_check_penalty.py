"""The contract of penalties: those that come along keep it, and breaches of it are found."""

import pytest
import torch

from samples.sample_penalty import Sample
from whyprune.recovery import PENALTIES, masking
from whyprune.recovery.penalty import PenaltyFacts
from whyprune.testing import check_penalty


@pytest.mark.parametrize("factory", [*PENALTIES, Sample])
def test_penalties_keep_the_contract(factory):
    check_penalty(PENALTIES(factory) if isinstance(factory, str) else factory)
    facts = (PENALTIES(factory) if isinstance(factory, str) else factory).facts
    assert isinstance(facts, PenaltyFacts)
    assert facts.summary
    assert not facts.summary.endswith(".")


BROKEN = {
    "a vector": (lambda w, m: w.square().sum((1, 2, 3)), "not a scalar"),
    "a float": (lambda w, m: float(w.detach().square().sum()), "not a tensor"),
    "of one type": (lambda w, m: w.square().sum().float(), "for a model of"),
    "below 0": (lambda w, m: -w.square().sum(), "below 0"),
    "not finite": (lambda w, m: w.square().sum() / 0, "it is inf"),
    "root at 0": (lambda w, m: w.flatten(1).square().sum(1).sqrt().sum(), "root at 0"),
    "detached": (lambda w, m: w.detach().square().sum(), "no gradient"),
    "flat": (lambda w, m: 1 + 0 * w.square().sum(), "0 everywhere"),
    "random": (lambda w, m: w.square().sum() * torch.rand(()), "generator"),
    "changing": (lambda w, m: (w.data.mul_(0.9), w.square().sum())[1], "another number|changed the model"),
    "of modes": (lambda w, m: (m.eval(), w.square().sum())[1], "mode"),
    "stale": (lambda w, m: (w - w.detach()).sum() + 7, "follow the model's weights"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_the_check_finds_what_is_wrong(kind):
    value, message = BROKEN[kind]
    with pytest.raises(AssertionError, match=message):
        check_penalty(lambda model, network: lambda: value(model.first.weight, model))


def test_masks_alone_keep_the_contract():
    check_penalty(masking(["first:2"]))
