"""What recovery minimises, and the learning rate it does so with."""

import math

from torch import Tensor
from torch.nn import functional as F

from whyprune.recovery.config import Recovery
from whyprune.recovery.mixup import Mixture


def learning_rate_at(step: int, steps: int, peak: float, warmup_fraction: float = 0.0) -> float:
    """Linear warm-up to `peak`, then half a cosine to nearly 0 at the last step.

    SGDR, Loshchilov and Hutter, ICLR 2017, equation 5, without restarts.

    Args:
        step: 0 … `steps` - 1.
        steps: optimiser steps in all.
        peak: the highest rate.
        warmup_fraction: share of the steps that warm up.
    """
    rising = round(warmup_fraction * steps)
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    return peak * (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2


def distillation_loss(logits: Tensor, dense_logits: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(dense / T) ‖ softmax(logits / T)), mean over the batch.

    T² keeps the size of the gradient when T changes: Hinton, Vinyals and Dean, 2015, section 2.1.

    Args:
        logits: (B, K).
        dense_logits: (B, K), without gradient.
        temperature: T > 0; higher asks for more than the dense network's first choice.
    """
    return temperature**2 * F.kl_div(
        F.log_softmax(logits / temperature, dim=1),
        F.log_softmax(dense_logits / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )


def recovery_loss(
    logits: Tensor,
    labels: Tensor | None,
    dense_logits: Tensor | None,
    recovery: Recovery,
    mixture: Mixture | None = None,
) -> Tensor:
    """(1 - distill) · cross-entropy + distill · distillation; a part with weight 0 is not computed.

    Args:
        logits: (B, K).
        dense_logits: (B, K); needed when `distill` is above 0.
        labels: (B,) class numbers; needed when `distill` is below 1.
        recovery: the weights of the parts, temperature and label smoothing.
        mixture: whom the images were mixed with; None for images as they are.
    """
    total = logits.new_zeros(())
    if recovery.distill < 1 and labels is not None:
        hard = F.cross_entropy(logits, labels, label_smoothing=recovery.label_smoothing)
        if mixture is not None and mixture.labels is not None:
            other = F.cross_entropy(logits, mixture.labels, label_smoothing=recovery.label_smoothing)
            hard = mixture.share * hard + (1 - mixture.share) * other
        total = total + (1 - recovery.distill) * hard
    if recovery.distill > 0 and dense_logits is not None:
        total = total + recovery.distill * distillation_loss(logits, dense_logits, recovery.temperature)
    return total
