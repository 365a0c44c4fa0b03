import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax
from torch.nn import functional as F

from whyprune.recovery.config import Recovery
from whyprune.recovery.objective import distillation_loss, learning_rate_at, recovery_loss


@given(steps=st.integers(2, 400), warmup_fraction=st.floats(0, 0.9), peak=st.floats(1e-5, 10))
def test_schedule_rises_once_falls_once_and_ends_near_zero(steps, warmup_fraction, peak):
    rates = np.array([learning_rate_at(step, steps, peak, warmup_fraction) for step in range(steps)])
    rising = round(warmup_fraction * steps)
    assert (rates > 0).all()
    assert (np.diff(rates[: rising + 1]) > 0).all()
    assert (np.diff(rates[rising:]) < 0).all()
    if rising < steps:
        assert rates.max() == rates[rising] == peak
        # 1 - cos(π/n) <= (π/n)²/2 for the last of n falling steps
        assert rates[-1] <= peak * (math.pi / (steps - rising)) ** 2 / 4 * (1 + 1e-9)


@given(seed=st.integers(0, 1000), temperature=st.floats(0.5, 20))
def test_distillation_is_the_scaled_divergence_and_zero_only_for_the_same_softmax(seed, temperature):
    generator = torch.Generator().manual_seed(seed)
    logits, dense = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64) * 3
    p, q = (softmax(z.numpy() / temperature, axis=1) for z in (dense, logits))
    expected = temperature**2 * rel_entr(p, q).sum(axis=1).mean()
    assert float(distillation_loss(logits, dense, temperature)) == pytest.approx(expected, rel=1e-6)
    assert float(distillation_loss(dense + 7, dense, temperature)) == pytest.approx(0, abs=1e-9)


def test_distillation_gradient_tends_to_that_of_centred_logits_at_high_temperature():
    logits = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    dense = torch.randn(6, 5, dtype=torch.float64)
    distillation_loss(logits, dense, 1e3).backward()
    centred = (logits - logits.mean(1, keepdim=True)) - (dense - dense.mean(1, keepdim=True))
    torch.testing.assert_close(logits.grad, centred.detach() / (6 * 5), rtol=1e-2, atol=1e-4)


@given(share=st.floats(0, 1), smoothing=st.floats(0, 0.9))
def test_loss_is_the_mixture_of_its_parts(share, smoothing):
    generator = torch.Generator().manual_seed(1)
    logits, dense = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 0])
    recovery = Recovery(distill=share, label_smoothing=smoothing)
    hard = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    soft = distillation_loss(logits, dense, recovery.temperature)
    torch.testing.assert_close(recovery_loss(logits, labels, dense, recovery), (1 - share) * hard + share * soft)
