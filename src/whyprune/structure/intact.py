"""What a plan from a file may not break: layers whose parts fit each other, and attributes that count no channels."""

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


def _divides(groups: int, channels: int) -> bool:
    return groups > 0 and channels % groups == 0


def _lengths(*vectors: Tensor | None) -> set[int]:
    return {len(v) for v in vectors if v is not None}
