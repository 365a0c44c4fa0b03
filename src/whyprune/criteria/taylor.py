"""First-order Taylor: |sum over places of gradient x activation| where a unit is read (Molchanov et al., CVPR 2019).

The effect of do(u := 0) to first order is -g·a. [P] absolute value per image, averaged over images. The outcome's
gradient vanishes where the network is unchanged for `LogitShift` and `PredictionChange`; for these the score is the
norm over logits of the first-order logit change, (sum_k (dz_k/da · a)^2), estimated with random signs (ours).
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whyprune.causal.effects import Effects, from_scores
from whyprune.causal.outcomes import CrossEntropy, Margin, Outcome, as_outcome, centred
from whyprune.data.batches import Batch, as_batches
from whyprune.errors import InputError
from whyprune.structure.network import Network
from whyprune.structure.replay import Replay, Values

PROBES = 4


def taylor(
    network: Network, data: Iterable[Any], *, outcome: Outcome | str | None = None, seed: int = 0
) -> Effects:
    """First-order scores of every unit; one backward pass per batch and probe.

    Args:
        network: a traced model.
        data: batches; labels only if the outcome needs them.
        outcome: what harm is (default `LogitShift`, label-free).
        seed: of the random signs.

    Raises:
        InputError: there is no data.
    """
    replay = Replay(network)
    chosen = as_outcome(outcome)
    generator = torch.Generator().manual_seed(seed)
    totals = np.zeros(len(network.units))
    images = 0
    for batch in as_batches(data, network.positional):
        scalars = _scalars(replay, batch, chosen, generator)
        for scalar, inputs in scalars:
            totals += _first_order(network, replay, scalar, inputs)
        images += len(batch)
    if not images:
        raise InputError("there is no data: Taylor scores need images")
    return from_scores(network.units, totals / images, method="taylor", samples=images)


def _scalars(
    replay: Replay, batch: Batch, outcome: Outcome, generator: torch.Generator
) -> Iterable[tuple[Tensor, Values]]:
    """What to differentiate, and the readers' inputs it depends on."""
    labelled = isinstance(outcome, CrossEntropy | Margin)
    for _ in range(1 if labelled else PROBES):
        logits, inputs = replay.differentiable(batch)
        if labelled:
            yield outcome(logits, logits, batch.labels).sum(), inputs
        else:
            signs = torch.randint(0, 2, logits.shape, generator=generator).to(logits.dtype) * 2 - 1
            yield (centred(logits) * signs).sum() / PROBES**0.5, inputs


def _first_order(network: Network, replay: Replay, scalar: Tensor, inputs: Values) -> np.ndarray:
    nodes = list(inputs)
    gradients = torch.autograd.grad(scalar, [inputs[n] for n in nodes], allow_unused=True)
    change: dict[int, Tensor] = {}
    for node, gradient in zip(nodes, gradients, strict=True):
        reader = next(r for r in network.readers if r.data is node)
        if gradient is None:
            continue
        product = (
            (gradient * inputs[node]).detach().movedim(reader.dim, 1).flatten(2 if gradient.dim() > 2 else 1)
        )
        per_image = product.sum(dim=2) if product.dim() > 2 else product
        for position, label in enumerate(reader.labels.tolist()):
            own = per_image[:, position]
            change[label] = change[label] + own if label in change else own
    zero = torch.zeros(())
    return np.array([float(change.get(u.label, zero).abs().sum()) for u in network.units])
