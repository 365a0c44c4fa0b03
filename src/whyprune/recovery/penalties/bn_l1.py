"""`bn-l1`: scales of batch norm become zero, and with them the channels they scale.

Network slimming (Liu et al., ICCV 2017): the sum of the scales' absolute values [P], over the channels of removable
units alone [I].
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from whyprune.errors import InputError
from whyprune.recovery.coupled import unit_numbers
from whyprune.recovery.penalty import Penalty, penalty
from whyprune.structure.network import Network


@penalty(
    "bn-l1",
    summary="the sum of the absolute batch-norm scales of all units",
    paper="Liu et al., ICCV 2017",
)
def bn_l1(model: nn.Module, network: Network) -> Penalty:
    """See the module."""
    layers = {f"{path}.weight": module for path, module in model.named_modules() if isinstance(module, _BatchNorm)}
    scales = [
        (layers[name].weight, torch.from_numpy((owners >= 0).nonzero()[0]).to(layers[name].weight.device))
        for (name, _), owners in unit_numbers(model, network).items()
        if name in layers
    ]
    if not scales:
        raise InputError("no unit has a batch-norm scale, which the penalty 'bn-l1' makes small: use 'group-lasso'")

    def total() -> Tensor:
        return torch.stack([scale[channels].abs().sum() for scale, channels in scales]).sum()

    return total
