"""Magnitude: the norm of a unit's weights.

L1: Li et al., ICLR 2017; over all coupled layers: DepGraph, Fang et al., CVPR 2023.

Formula: mean over the coupled slices of matrix weights (producers' filters and readers' input slices) of
|w|_p^p. [P] the norm; [C] the mean over a group's layers; batch-norm entries and biases are left out (ours).
"""

import numpy as np

from whyprune.effects.effects import Effects, from_scores
from whyprune.errors import InputError
from whyprune.structure.axes import Axis
from whyprune.structure.network import Network


def magnitude(network: Network, *, order: int = 2) -> Effects:
    """|w|_p^p of every unit, averaged over its coupled weights.

    Args:
        network: a traced model.
        order: p, 1 or 2.

    Raises:
        InputError: another order.
    """
    if order not in (1, 2):
        raise InputError(f"magnitude of order {order}: choose 1 or 2")
    powers: dict[Axis, np.ndarray] = {}
    for name, tensor in network.model.named_parameters():
        if tensor.dim() > 1:
            flat = tensor.detach().double().abs().pow(order)
            for axis in (0, 1):
                powers[name, axis] = flat.transpose(0, axis).flatten(1).sum(dim=1).cpu().numpy()
    scores = [
        np.mean(
            [powers[s.parameter, s.axis][list(s.indices)].sum() for s in u.slices if (s.parameter, s.axis) in powers]
        )
        for u in network.units
    ]
    return from_scores(network.units, scores, method=f"magnitude-l{order}")
