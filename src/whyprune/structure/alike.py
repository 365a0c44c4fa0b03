"""Whether a module is cut by the units that are named, or by others of the same numbers: told by channels' likeness.

A repair or a training leaves most channels recognisable. Where a tenth of a layer's channels are nearly the original's
channels of other places, and nothing like those that are claimed, the module lacks other units than those named. A
module of which nothing is recognisable is taken at its word.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from whyprune.structure.axes import Axis
from whyprune.structure.network import Network

Indices = NDArray[np.int64]
MOST_CHANNELS, MOST_WEIGHTS = 64, 512
"""Of one layer: enough to tell channels apart, and milliseconds on the largest."""
FEWEST_WEIGHTS = 9
"""Filters of fewer weights resemble each other by chance."""
ALIKE, UNLIKE, SHARE = 0.95, 0.5, 0.1


def cut_elsewhere(network: Network, model: nn.Module, gone: Mapping[Axis, Indices]) -> str:
    """The first layer whose channels are those of other places than claimed; empty where there is none.

    Args:
        network: the traced original.
        model: the module that is said to lack `gone`, of the right shapes.
        gone: (parameter, axis) -> sorted indices that it is said to lack.
    """
    tensors, originals = dict(model.named_parameters()), dict(network.model.named_parameters())
    for group in network.groups:
        parameter, axis = group.home
        if (parameter, axis) not in gone or parameter not in tensors or parameter not in originals:
            continue
        original, mine = originals[parameter].detach(), tensors[parameter].detach()
        for other in range(original.dim()):
            if other != axis and (parameter, other) in gone:
                original = original.index_select(other, _kept(original.shape[other], gone[parameter, other]))
        if _shifted(_rows(mine, axis), _rows(original, axis), _kept(original.shape[axis], gone[parameter, axis])):
            return parameter
    return ""


def _shifted(mine: Tensor, original: Tensor, claimed: Tensor) -> bool:
    """Whether rows (kept, weights) are nearly rows of other places of the original than claimed."""
    if mine.shape[1] < FEWEST_WEIGHTS or mine.shape[1] != original.shape[1] or len(mine) != len(claimed):
        return False
    rows = torch.linspace(0, len(mine) - 1, min(len(mine), MOST_CHANNELS), device=mine.device).round().long()
    columns = torch.linspace(0, mine.shape[1] - 1, min(mine.shape[1], MOST_WEIGHTS), device=mine.device).round().long()
    likeness = _unit(mine[rows][:, columns]) @ _unit(original[:, columns]).T
    own = likeness.gather(1, claimed.to(likeness.device)[rows, None])[:, 0]
    return bool(((own < UNLIKE) & (likeness.amax(dim=1) > ALIKE)).double().mean() >= SHARE)


def _rows(tensor: Tensor, axis: int) -> Tensor:
    """(channels, weights of one), in single precision."""
    return tensor.movedim(axis, 0).flatten(1).float() if tensor.dim() > 1 else tensor[:, None].float()


def _kept(size: int, gone: Indices) -> Tensor:
    return torch.from_numpy(np.setdiff1d(np.arange(size), gone))


def _unit(rows: Tensor) -> Tensor:
    length: Tensor = rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return rows / length
