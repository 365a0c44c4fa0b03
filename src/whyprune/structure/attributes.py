"""Module attributes that restate a parameter's shape, and parameters that one module class ties together.

One entry per module class. The attributes are for people and exporters; nothing here decides what is right,
`verify` does.
"""

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

Stretch = tuple[str, int, int]
"""Consecutive indices of an axis: the parameter's name, the axis, the first index; the length is told beside it."""

_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
_BatchNorm = nn.modules.batchnorm._NormBase


def update_widths(model: nn.Module) -> None:
    """Sets width attributes of all known module classes to what their parameters say."""
    for module in model.modules():
        for kind, update in _UPDATES:
            if isinstance(module, kind):
                update(module)


def ties(model: nn.Module) -> Iterator[tuple[int, list[Stretch]]]:
    """(length, stretches of axes) that modules of a known class must keep equal, index by index."""
    for path, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            yield _attention_ties(f"{path}." if path else "", module)


def _attention_ties(prefix: str, module: nn.MultiheadAttention) -> tuple[int, list[Stretch]]:
    """Its forward reads one width everywhere: of queries, of all heads together, and of the output."""
    width = module.embed_dim
    axes = [(f"{prefix}out_proj.weight", 0, 0), (f"{prefix}out_proj.weight", 1, 0)]
    if module._qkv_same_embed_dim:
        name = f"{prefix}in_proj_weight"
        return width, [*axes, (name, 1, 0), *((name, 0, part * width) for part in range(3))]
    names = [f"{prefix}{x}_proj_weight" for x in "qkv"]
    return width, [*axes, (names[0], 1, 0), *((name, 0, 0) for name in names)]


def _convolution(module: nn.Module) -> None:
    assert isinstance(module, _Convolution)
    out, inner = module.weight.shape[:2]
    module.out_channels, module.in_channels = out, inner * module.groups


def _transposed(module: nn.Module) -> None:
    assert isinstance(module, _Transposed)
    inner, out = module.weight.shape[:2]
    module.in_channels, module.out_channels = inner, out * module.groups


def _linear(module: nn.Module) -> None:
    assert isinstance(module, nn.Linear)
    module.out_features, module.in_features = module.weight.shape


def _batch_norm(module: nn.Module) -> None:
    assert isinstance(module, _BatchNorm)
    vector = module.running_mean if module.weight is None else module.weight
    if vector is not None:
        module.num_features = vector.shape[0]


def _group_norm(module: nn.Module) -> None:
    assert isinstance(module, nn.GroupNorm)
    if module.weight is not None:
        module.num_channels = module.weight.shape[0]


def _embedding(module: nn.Module) -> None:
    assert isinstance(module, nn.Embedding)
    module.embedding_dim = module.weight.shape[1]


def _prelu(module: nn.Module) -> None:
    assert isinstance(module, nn.PReLU)
    module.num_parameters = module.weight.shape[0]


def _attention(module: nn.Module) -> None:
    assert isinstance(module, nn.MultiheadAttention)
    module.embed_dim = module.out_proj.weight.shape[0]
    module.num_heads = module.embed_dim // module.head_dim
    if module._qkv_same_embed_dim:
        module.kdim = module.vdim = module.embed_dim
    else:
        module.kdim, module.vdim = module.k_proj_weight.shape[1], module.v_proj_weight.shape[1]


def _recurrent(module: nn.Module) -> None:
    assert isinstance(module, nn.RNNBase)
    gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
    weight: Any = module.weight_ih_l0  # a parameter, or computed from some
    rows, columns = weight.shape
    module.hidden_size, module.input_size = rows // gates, columns


def _recurrent_cell(module: nn.Module) -> None:
    assert isinstance(module, nn.RNNCellBase)
    module.hidden_size, module.input_size = module.weight_hh.shape[1], module.weight_ih.shape[1]


_UPDATES: list[tuple[type | tuple[type, ...], Callable[[nn.Module], None]]] = [
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    ((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _transposed),
    (nn.Linear, _linear),
    (_BatchNorm, _batch_norm),
    (nn.GroupNorm, _group_norm),
    (nn.Embedding, _embedding),
    (nn.PReLU, _prelu),
    (nn.MultiheadAttention, _attention),
    (nn.RNNBase, _recurrent),
    (nn.RNNCellBase, _recurrent_cell),
]
