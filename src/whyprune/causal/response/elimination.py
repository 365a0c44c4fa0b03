"""Which channels a layer can do without: greedy backward elimination under its own least squares.

The layer that reads the channels is refitted to its target from fewer and fewer of them; at each step the channel goes
whose loss the others can best carry: its *unique* effect on the layer's target. Same score and update as OSSCAR
(Meng et al., ICML 2024) and ZipLM (Kurtic et al., NeurIPS 2023), for blocks of one channel's kernel.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whyprune.repair.solve import mean_diagonal, row_times

RIDGE, TINY = 1e-3, 1e-30


@dataclass(frozen=True)
class Elimination:
    """The path of an elimination.

    Attributes:
        order: channels in the order in which they go.
        losses: what each of them takes with it, given those before it: what the penalised squared error rises by, as a
            share of the target's variance.
        weights: kept count -> (kept channels ascending, weights (O, kept x block), biases (O,)); O of all groups.
    """

    order: list[int]
    losses: list[float]
    weights: dict[int, tuple[list[int], Tensor, Tensor]]


def eliminate(
    x: Tensor, target: Tensor, channels: Sequence[Tensor], keep: Collection[int], ridge: float = RIDGE
) -> Elimination:
    """Eliminates channels one by one down to the smallest of `keep`.

    Args:
        x: features, (n, D); of a layer with groups (groups, n, D): a channel is then the same features of every group.
        target: (n, O), or (groups, n, O).
        channels: feature indices of every removable channel, all of one length; other features always stay.
        keep: kept counts at which weights are wanted.
        ridge: relative to the features' mean energy.
    """
    mean_x, mean_t = x.mean(dim=-2), target.mean(dim=-2)
    centred = x - mean_x.unsqueeze(-2)
    gram = (centred.mT @ centred).double()
    strength = ridge * mean_diagonal(gram).clamp_min(1e-12)
    gram += strength[..., None, None] * torch.eye(gram.shape[-1], dtype=gram.dtype)
    inverse = torch.linalg.inv(gram)
    weights = inverse @ (centred.mT @ (target - mean_t.unsqueeze(-2))).double()
    alive = list(range(len(channels)))
    always = _others(gram.shape[-1], channels)
    order: list[int] = []
    lost: list[float] = []
    energy = float((target - mean_t.unsqueeze(-2)).double().square().sum())
    found: dict[int, tuple[list[int], Tensor, Tensor]] = {}
    while True:
        if len(alive) in keep:
            features = torch.cat([channels[c] for c in alive] + [always]).sort().values
            kept = weights[..., features, :].to(x.dtype)
            bias = mean_t - row_times(mean_x[..., features], kept)
            found[len(alive)] = (list(alive), kept.mT.flatten(0, -2).contiguous(), bias.flatten())
        if len(alive) <= min(keep):
            return Elimination(order, lost, found)
        losses = _losses(weights, inverse, torch.stack([channels[c] for c in alive]))
        gone = alive[int(losses.argmin())]
        lost.append(float(losses.min()) / max(energy, TINY))
        weights, inverse = _without(weights, inverse, channels[gone])
        alive.remove(gone)
        order.append(gone)


@dataclass(frozen=True)
class Reading:
    """What one of several readers of the same units would lose, in second moments.

    Attributes:
        inverse: of the covariance of the channels it reads, (C, C).
        weights: (C, any): a square root of its weights' products, channel by channel.
        units: positions of every unit's channels, (units, channels per unit).
        scale: what losses are divided by, so that readers can be added up.
    """

    inverse: Tensor
    weights: Tensor
    units: Tensor
    scale: float


def eliminate_jointly(readings: Sequence[Reading]) -> list[int]:
    """The order in which units go that several layers read: that of `joint_elimination`."""
    return joint_elimination(readings).order


def joint_elimination(readings: Sequence[Reading]) -> Elimination:
    """Units go that several layers read: always the one whose loss, summed over readers, is least.

    Each loss is conditional on the units that are gone: what is left carries them, so of two copies only one is free.
    No weights come with it.
    """
    state = [(r.weights, r.inverse) for r in readings]
    alive = list(range(len(readings[0].units)))
    order: list[int] = []
    lost: list[float] = []
    while alive:
        losses = torch.stack(
            [_losses(w, i, r.units[alive]) / r.scale for r, (w, i) in zip(readings, state, strict=True)]
        )
        together = losses.sum(dim=0)
        lost.append(float(together.min()))
        gone = alive.pop(int(together.argmin()))
        state = [_without(w, i, r.units[gone]) for r, (w, i) in zip(readings, state, strict=True)]
        order.append(gone)
    return Elimination(order, lost, {})


def _losses(weights: Tensor, inverse: Tensor, blocks: Tensor) -> Tensor:
    """What is lost with each block of features, (blocks,), the others carrying what they can; over all groups."""
    inner = inverse[..., blocks[:, :, None], blocks[:, None, :]]
    own = weights[..., blocks, :]
    lost: Tensor = own * torch.linalg.solve(inner, own)
    lost = lost.sum(dim=(-2, -1))
    return lost if lost.dim() == 1 else lost.sum(dim=0)


def _without(weights: Tensor, inverse: Tensor, block: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and inverse when a block is gone (a Schur complement)."""
    own = inverse[..., block, :]
    gain = torch.linalg.solve(own[..., block], own).mT
    return weights - gain @ weights[..., block, :], inverse - gain @ own


def _others(features: int, channels: Sequence[Tensor]) -> Tensor:
    stays = torch.ones(features, dtype=torch.bool)
    stays[torch.cat(list(channels))] = False
    return stays.nonzero().flatten()
