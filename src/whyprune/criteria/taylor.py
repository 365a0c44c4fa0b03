"""First-order Taylor: |sum over places of gradient x activation| where a unit is read.

Molchanov et al., CVPR 2019. The effect of do(u := 0) to first order is -g·a. [P] absolute value per image,
averaged over images. Where several layers read a unit, their terms are added up before the absolute value; what one
term does to a unit further down the same stream counts in both (ours). The outcome's gradient vanishes where the
network is unchanged for `LogitShift` and `PredictionChange`, and may for a function; for these the score is
mean |sum_k s_k (dz_k/da · a)| over random signs s: the first-order change of the centred logits z (ours).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whyprune.causal.effects import Effects, from_scores
from whyprune.causal.outcomes import ClassLogit, CrossEntropy, Margin, Outcome, as_outcome, centred
from whyprune.data.batches import Batch, as_batches
from whyprune.errors import InputError
from whyprune.structure.network import Network
from whyprune.structure.replay import Replay, Values

PROBES = 4


def taylor(network: Network, data: Iterable[Any], *, outcome: Outcome | str | None = None, seed: int = 0) -> Effects:
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
            totals += _first_order(network, scalar, inputs)
        images += len(batch)
    if not images:
        raise InputError("there is no data: Taylor scores need images")
    return from_scores(network.units, totals / images, method="taylor", samples=images)


def _scalars(
    replay: Replay, batch: Batch, outcome: Outcome, generator: torch.Generator
) -> Iterable[tuple[Tensor, Values]]:
    """What to differentiate, and the readers' inputs it depends on."""
    differentiable = isinstance(outcome, CrossEntropy | Margin | ClassLogit)
    for _ in range(1 if differentiable else PROBES):
        logits, inputs = replay.differentiable(batch)
        if differentiable:
            yield outcome(logits, logits.detach(), batch.labels).sum(), inputs
        else:
            signs = torch.randint(0, 2, logits.shape, generator=generator).to(logits.dtype) * 2 - 1
            yield (centred(logits) * signs).sum() / PROBES, inputs


def _first_order(network: Network, scalar: Tensor, inputs: Values) -> np.ndarray:
    readers = {r.data: r for r in network.readers}
    nodes = list(inputs)
    gradients: Sequence[Tensor | None] = torch.autograd.grad(scalar, [inputs[n] for n in nodes], allow_unused=True)
    change: dict[int, Tensor] = {}
    for node, gradient in zip(nodes, gradients, strict=True):
        if gradient is None:
            continue
        reader = readers[node]
        per_image = (gradient * inputs[node]).detach().movedim(reader.dim, 1).unsqueeze(-1).flatten(2).sum(dim=2)
        for position, label in enumerate(reader.labels.tolist()):
            own = per_image[:, position]
            change[label] = change[label] + own if label in change else own
    zero = torch.zeros(())
    return np.array([float(change.get(u.label, zero).abs().sum()) for u in network.units])
