"""Tensors that a module computes from other parameters: their values are kept when their parts are cut.

Parametrisations (`torch.nn.utils.parametrizations`) as well as the older hooks, `nn.utils.weight_norm` and
`nn.utils.spectral_norm`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

TINY = 1e-12


class Computed(Protocol):
    """A tensor that a module computes from other parameters."""

    @property
    def prefix(self) -> str:
        """What the names of all parameters begin with from which it is computed."""
        ...

    def value(self) -> Tensor:
        """The tensor as the module computes it in evaluation."""
        ...

    def set(self, value: Tensor) -> None:
        """Writes the parameters from which the module computes `value`, once they have been cut."""
        ...


@dataclass(frozen=True)
class Parametrised:
    """A tensor under `torch.nn.utils.parametrize`, whose parts can be set to a value."""

    module: nn.Module
    name: str
    prefix: str

    def value(self) -> Tensor:
        """The tensor as the module computes it."""
        with torch.no_grad():
            found: Tensor = getattr(self.module, self.name)
            return found.detach().clone()

    def set(self, value: Tensor) -> None:
        """Writes the parameters from which the module computes `value`, where its parametrisation can."""
        with torch.no_grad():  # a direction of length 0 has no value: zeros are written as next to nothing
            setattr(self.module, self.name, torch.where(value == 0, TINY, value))


@dataclass(frozen=True)
class WeightNormed:
    """A weight under the hook `nn.utils.weight_norm`: a length times a direction."""

    module: nn.Module
    hook: WeightNorm
    prefix: str

    def value(self) -> Tensor:
        """The weight as the hook computes it."""
        with torch.no_grad():
            found: Tensor = self.hook.compute_weight(self.module)
            return found.detach().clone()

    def set(self, value: Tensor) -> None:
        """Writes length and direction."""
        state, name = self.module._parameters, self.hook.name
        direction, length = state[f"{name}_v"], state[f"{name}_g"]
        assert direction is not None
        assert length is not None
        with torch.no_grad():
            direction.copy_(torch.where(value == 0, TINY, value))
            length.copy_(torch.norm_except_dim(direction, 2, self.hook.dim))
        setattr(self.module, name, self.value())


@dataclass(frozen=True)
class SpectrallyNormed:
    """A weight under the hook `nn.utils.spectral_norm`: divided by u' W v, which a removal would change."""

    module: nn.Module
    hook: SpectralNorm
    prefix: str

    def value(self) -> Tensor:
        """The weight as the hook computes it in evaluation."""
        with torch.no_grad():
            found: Tensor = self.hook.compute_weight(self.module, do_power_iteration=False)
            return found.detach().clone()

    def set(self, value: Tensor) -> None:
        """Scales u so that evaluation divides by what it did; training finds u anew, of length 1."""
        left = self.module._buffers[f"{self.hook.name}_u"]
        assert left is not None
        own = self.value()
        with torch.no_grad():
            left.mul_((value * own).sum().div((value * value).sum().clamp_min(TINY)).clamp_min(TINY))
        setattr(self.module, self.hook.name, self.value())


def computed(model: nn.Module) -> Iterator[Computed]:
    """All computed tensors of a model that can be set to a value."""
    for path, module in model.named_modules():
        start = f"{path}." if path else ""
        if parametrize.is_parametrized(module):
            for name, parts in module.parametrizations.items():
                if all(hasattr(p, "right_inverse") for p in parts):
                    yield Parametrised(module, name, f"{start}parametrizations.{name}.")
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm):
                yield WeightNormed(module, hook, f"{start}{hook.name}_")
            elif isinstance(hook, SpectralNorm):
                yield SpectrallyNormed(module, hook, f"{start}{hook.name}_")


def touched(
    model: nn.Module, axes: Mapping[str, Mapping[int, NDArray[Any]]]
) -> Iterable[tuple[Computed, dict[int, NDArray[Any]], Tensor]]:
    """Computed tensors of which parts go: each with the indices that it loses, and its value before."""
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for tensor in computed(model):
        before = tensor.value()
        parts = [n for n in axes if n.startswith(tensor.prefix) and shapes.get(n) == tuple(before.shape)]
        if parts:
            yield tensor, dict(axes[parts[0]]), before
