"""Fresh weights for the built-in networks."""

from torch import nn


def initialize(network: nn.Module) -> None:
    """Draws fresh weights from torch's global generator, in place.

    Convolutions: normal with variance 2 / (outputs x kernel area) (He et al. 2015, arXiv:1502.01852, eq. 14).
    Batch norms start as the identity; linear layers as torch makes them.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d | nn.Linear):
            module.reset_parameters()
