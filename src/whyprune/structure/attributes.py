"""Module attributes that restate a parameter's shape, kept true after removal.

One entry per module class: attribute names and how to read them off the module's parameters. They are for
people, exporters and depthwise convolutions; nothing here decides what is right, `verify` does.
"""

from collections.abc import Callable

from torch import nn

_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_BatchNorm = nn.modules.batchnorm._NormBase


def restates_its_shape(module: nn.Module) -> bool:
    """Whether `update_widths` knows the module's class."""
    return any(isinstance(module, kind) for kind, _ in _UPDATES)


def update_widths(model: nn.Module) -> None:
    """Sets width attributes of all known module classes to what their parameters say."""
    for module in model.modules():
        for kind, update in _UPDATES:
            if isinstance(module, kind):
                update(module)


def _convolution(module: nn.Module) -> None:
    assert isinstance(module, _Convolution)
    out, inner = module.weight.shape[:2]
    if module.groups > 1 and inner == 1 and module.out_channels == module.in_channels == module.groups:
        module.groups = out
    module.out_channels, module.in_channels = out, inner * module.groups


def _linear(module: nn.Module) -> None:
    assert isinstance(module, nn.Linear)
    module.out_features, module.in_features = module.weight.shape


def _batch_norm(module: nn.Module) -> None:
    assert isinstance(module, _BatchNorm)
    vector = module.running_mean if module.weight is None else module.weight
    if vector is not None:
        module.num_features = vector.shape[0]


_UPDATES: list[tuple[type | tuple[type, ...], Callable[[nn.Module], None]]] = [
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    (nn.Linear, _linear),
    (_BatchNorm, _batch_norm),
]
