"""Re-estimation of batch-norm statistics on calibration images (EagleEye, Li et al., ECCV 2020): no weights change."""

from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
from torch import nn

from whyprune.data.batches import as_batches
from whyprune.errors import InputError
from whyprune.structure.precise import has_half, in_single, single, with_types_of


def reestimate_batch_norm(model: nn.Module, data: Iterable[Any], positional: int = 1) -> nn.Module:
    """A copy of `model` whose batch norms hold the average statistics of `data`; nothing else changes.

    Args:
        model: a network; it is not changed.
        data: unlabelled batches.
        positional: how many positional inputs the network takes.

    Raises:
        InputError: there is no data.
    """
    batches = iter(as_batches(data, positional))
    first = next(batches, None)
    if first is None:
        raise InputError("there is no data to re-estimate batch norm with")
    tuned = single(model, first).eval()
    widened = has_half(model) and not has_half(tuned)
    norms = [m for m in tuned.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over batches
        norm.train()
    with torch.no_grad():
        for batch in chain([first], batches):
            (in_single(batch) if widened else batch).call(tuned)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return with_types_of(tuned, model).eval()
