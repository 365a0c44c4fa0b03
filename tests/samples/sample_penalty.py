"""A penalty of your own, in twenty lines: the sum of the logarithms of 1 + the norm of all weights of a unit."""

import torch
from torch import Tensor, nn

from whyprune.recovery import CoupledWeights, penalty
from whyprune.structure.network import Network


@penalty("sample", summary="the sum over units of log(1 + the norm of all coupled weights)")
class Sample:
    """Prefers few large units over many small ones more sharply than the group lasso."""

    def __init__(self, model: nn.Module, network: Network) -> None:
        self.coupled = CoupledWeights(model, network)

    def __call__(self) -> Tensor:
        return torch.log1p(self.coupled.norms()).sum()
