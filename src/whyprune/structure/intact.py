"""What a plan from a file may not break: layers whose parts fit each other, and attributes that count no channels."""

from typing import Any

from torch import Tensor, nn
from torch.nn.modules import batchnorm, conv

COUNTING: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((conv._ConvNd, nn.ChannelShuffle), "groups"),
    (nn.GroupNorm, "num_groups"),
    ((nn.LayerNorm, nn.RMSNorm), "normalized_shape"),
    (nn.Unflatten, "unflattened_size"),
    (nn.modules.padding._ConstantPadNd, "padding"),
)
"""Constants of torch's own modules that may count channels; strides, kernels and dimensions never do."""


def may_count(module: nn.Module, attribute: str) -> bool:
    """Whether an attribute may count channels: not a private one, and of the constants of torch's modules few."""
    own = [vars(kind) for kind in type(module).__mro__ if kind.__module__.startswith("torch.")]
    fixed = {name for held in own for key in ("__constants__", "__annotations__") for name in held.get(key, ())}
    if attribute in fixed:
        return any(isinstance(module, kind) and attribute == name for kind, name in COUNTING)
    return not attribute.startswith("_")


def misfit(before: nn.Module, after: nn.Module) -> str:
    """The first of torch's own layers whose parts no longer fit each other after a cut; nothing where all do."""
    old = dict(before.named_modules())
    for path, module in after.named_modules():
        if not _fits(old[path], module):
            return path or "the model"
    return ""


def _fits(old: nn.Module, new: nn.Module) -> bool:
    if isinstance(new, conv._ConvNd) and isinstance(old, conv._ConvNd):
        return _convolution_fits(old, new)
    if isinstance(new, nn.Linear):
        return _lengths(new.bias) <= {new.weight.shape[0]}
    if isinstance(new, batchnorm._NormBase):
        return len(_lengths(new.weight, new.bias, new.running_mean, new.running_var)) <= 1
    if isinstance(new, nn.RNNBase):
        return all(map(_recurrent_fits, *zip(*_layers(new), strict=True)))
    if isinstance(new, nn.RNNCellBase):
        return _recurrent_fits(
            new.hidden_size, new.input_size, [new.weight_ih, new.weight_hh], [new.bias_ih, new.bias_hh]
        )
    if isinstance(new, nn.GroupNorm):
        return len(_lengths(new.weight, new.bias)) <= 1 and _divides(new.num_groups, new.num_channels)
    if isinstance(new, nn.LayerNorm):
        shapes = {tuple(t.shape) for t in (new.weight, new.bias) if t is not None}
        return shapes <= {tuple(new.normalized_shape)}
    return True


def _convolution_fits(old: conv._ConvNd, new: conv._ConvNd) -> bool:
    if old.weight.shape[2:] != new.weight.shape[2:]:
        return False
    whole = _divides(new.groups, new.in_channels) and _divides(new.groups, new.out_channels)
    return whole and _lengths(new.bias) <= {new.out_channels}


def _layers(module: nn.RNNBase) -> list[tuple[int, int, list[Any], list[Any]]]:
    """Hidden width, input width, matrices and biases of every layer and direction."""
    ways = ("", "_reverse") if module.bidirectional else ("",)
    found = []
    for layer in range(module.num_layers):
        given = module.input_size if layer == 0 else (module.proj_size or module.hidden_size) * len(ways)
        for way in ways:
            parts = [
                getattr(module, f"{kind}_l{layer}{way}", None)
                for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            ]
            found.append((module.hidden_size, given, parts[:2], parts[2:]))
    return found


def _recurrent_fits(hidden: int, given: int, matrices: list[Any], biases: list[Any]) -> bool:
    """Every gate has as many rows, and every matrix the columns of what it multiplies."""
    rows = _lengths(*matrices, *biases)
    columns = matrices[0].shape[1] == given and matrices[1].shape[1] <= hidden
    return len(rows) == 1 and hidden > 0 and rows.pop() % hidden == 0 and columns


def _divides(groups: int, channels: int) -> bool:
    return groups > 0 and channels % groups == 0


def _lengths(*vectors: Tensor | None) -> set[int]:
    return {len(v) for v in vectors if v is not None}
