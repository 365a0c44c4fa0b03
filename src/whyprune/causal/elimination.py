"""Which channels a layer can do without: greedy backward elimination under its own least squares.

The layer that reads the channels is refitted to its target from fewer and fewer of them; at each step the channel goes
whose loss the others can best carry: its *unique* effect on the layer's target. Same score and update as OSSCAR
(Meng et al., ICML 2024) and ZipLM (Kurtic et al., NeurIPS 2023), for blocks of one channel's kernel.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-3


@dataclass(frozen=True)
class Elimination:
    """The path of an elimination.

    Attributes:
        order: channels in the order in which they go.
        weights: kept count -> (kept channels ascending, weights (O, kept x block), biases (O,)).
    """

    order: list[int]
    weights: dict[int, tuple[list[int], Tensor, Tensor]]


def eliminate(
    x: Tensor, target: Tensor, channels: Sequence[Tensor], keep: Collection[int], ridge: float = RIDGE
) -> Elimination:
    """Eliminates channels one by one down to the smallest of `keep`.

    Args:
        x: features, (n, D).
        target: (n, O).
        channels: feature indices of every removable channel, all of one length; other features always stay.
        keep: kept counts at which weights are wanted.
        ridge: relative to the features' mean energy.
    """
    mean_x, mean_t = x.mean(dim=0), target.mean(dim=0)
    centred = x - mean_x
    gram = (centred.T @ centred).double()
    gram += ridge * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(len(gram), dtype=gram.dtype)
    inverse = torch.linalg.inv(gram)
    weights = inverse @ (centred.T @ (target - mean_t)).double()
    alive = list(range(len(channels)))
    always = _others(len(gram), channels)
    order: list[int] = []
    found: dict[int, tuple[list[int], Tensor, Tensor]] = {}
    while True:
        if len(alive) in keep:
            features = torch.cat([channels[c] for c in alive] + [always]).sort().values
            kept = weights[features].float()
            found[len(alive)] = (list(alive), kept.T.contiguous(), mean_t - mean_x[features] @ kept)
        if len(alive) <= min(keep):
            return Elimination(order, found)
        weights, inverse, gone = _drop_one(weights, inverse, torch.stack([channels[c] for c in alive]))
        order.append(alive.pop(gone))


def _drop_one(weights: Tensor, inverse: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor, int]:
    """Removes the block with the least loss; downdates the inverse (a Schur complement)."""
    inner = inverse[blocks[:, :, None], blocks[:, None, :]]
    own = weights[blocks]
    loss = (own * torch.linalg.solve(inner, own)).sum(dim=(1, 2))
    gone = int(loss.argmin())
    block = blocks[gone]
    gain = torch.linalg.solve(inner[gone], inverse[block]).T
    return weights - gain @ weights[block], inverse - gain @ inverse[block], gone


def _others(features: int, channels: Sequence[Tensor]) -> Tensor:
    stays = torch.ones(features, dtype=torch.bool)
    stays[torch.cat(list(channels))] = False
    return stays.nonzero().flatten()
