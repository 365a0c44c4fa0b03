"""Mixup mixes inputs and losses alike, and is repeatable."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from whyprune.data.batches import Batch
from whyprune.errors import InputError
from whyprune.recovery import Recovery, recover
from whyprune.recovery.mixup import Mixture, mixed
from whyprune.recovery.objective import recovery_loss


def batch(count=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, 4, 4, generator=generator)
    return Batch((x,), {"scale": torch.rand(count, 2, generator=generator)}, torch.arange(count) % 3)


@given(alpha=st.floats(0.05, 5), seed=st.integers(0, 1000))
def test_every_image_is_mixed_with_the_one_whose_label_is_given(alpha, seed):
    plain = batch()
    labelled = Batch(plain.args, plain.kwargs, torch.arange(6))  # labels are the images' numbers
    found, mixture = mixed(labelled, alpha, np.random.default_rng(seed))
    assert 0 <= mixture.share <= 1
    assert sorted(mixture.labels.tolist()) == list(range(6))
    assert found.labels.tolist() == list(range(6))
    for own, got in ((plain.args[0], found.args[0]), (plain.kwargs["scale"], found.kwargs["scale"])):
        expected = mixture.share * own + (1 - mixture.share) * own[mixture.labels]
        torch.testing.assert_close(got, expected)


def test_what_is_no_number_stays():
    plain = Batch((torch.arange(4), "name"), {}, None)
    found, mixture = mixed(plain, 1.0, np.random.default_rng(0))
    assert found.args[0].tolist() == [0, 1, 2, 3]
    assert found.args[1] == "name"
    assert mixture.labels is None


@given(share=st.floats(0, 1), distill=st.floats(0, 0.9))
def test_the_loss_is_that_of_mixed_one_hot_labels(share, distill):
    generator = torch.Generator().manual_seed(2)
    logits, dense = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    labels, others = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([1, 1, 0, 2, 3])
    soft = share * F.one_hot(labels, 4).double() + (1 - share) * F.one_hot(others, 4).double()
    recovery = Recovery(distill=distill)
    found = recovery_loss(logits, labels, dense, recovery, Mixture(others, share))
    apart = recovery_loss(logits, labels, dense, Recovery(distill=1.0, temperature=recovery.temperature))
    expected = (1 - distill) * F.cross_entropy(logits, soft) + distill * apart
    torch.testing.assert_close(found, expected)


def test_training_on_mixtures_is_repeatable_and_another_training(network, dataset):
    def trained(mixup):
        recovery = Recovery(epochs=2, batch_size=16, learning_rate=0.05, mixup_alpha=mixup)
        return recover(network, dataset, recovery, progress=False).model.state_dict()

    plain, once, twice = trained(0.0), trained(1.0), trained(1.0)
    assert all(torch.equal(once[k], twice[k]) for k in once)
    assert any(not torch.equal(plain[k], once[k]) for k in once)


def test_a_negative_share_is_refused():
    with pytest.raises(InputError, match="mixup_alpha is -1"):
        Recovery(mixup_alpha=-1)
