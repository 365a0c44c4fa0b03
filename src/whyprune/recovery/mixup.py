"""Mixup: images are trained on in pairs, one shining through the other.

Zhang et al., ICLR 2018: x = s x_i + (1 - s) x_j, the loss of labels mixed alike, s ~ Beta(a, a), one s a batch [P].
With distillation the dense network says what the mixture is (Beyer et al., CVPR 2022, function matching): on plain
training images, which it has learnt by heart, it has little left to say.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from whyprune.data.batches import Batch


@dataclass(frozen=True)
class Mixture:
    """Whom a batch's images were mixed with.

    Attributes:
        labels: of the other image, (B,); None where there are none.
        share: weight of an image itself, 0 to 1; the other one has the rest.
    """

    labels: Tensor | None
    share: float


def mixed(batch: Batch, alpha: float, generator: np.random.Generator) -> tuple[Batch, Mixture]:
    """The batch with its images mixed in pairs.

    Args:
        batch: inputs of any kind; tensors of floats are mixed, the labels stay those of the images themselves.
        alpha: of the Beta distribution; 1 draws shares evenly, small numbers leave most images nearly whole.
        generator: what pairs and share are drawn from.
    """
    share = float(generator.beta(alpha, alpha))
    order = torch.from_numpy(generator.permutation(len(batch)))

    def mix(value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value
        return torch.lerp(value[order.to(value.device)], value, share)

    inputs = batch.mapped(mix)
    labels = None if batch.labels is None else batch.labels[order.to(batch.labels.device)]
    return inputs, Mixture(labels, share)
