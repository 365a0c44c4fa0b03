"""Parametrised tensors (`torch.nn.utils.parametrizations`): their values are kept when their parts are cut."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

TINY = 1e-12


@dataclass(frozen=True)
class Computed:
    """A tensor that a module computes from other parameters, and where those are."""

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


def computed(model: nn.Module) -> Iterator[Computed]:
    """All parametrised tensors of a model that can be set to a value."""
    for path, module in model.named_modules():
        if parametrize.is_parametrized(module):
            for name, parts in module.parametrizations.items():
                if all(hasattr(p, "right_inverse") for p in parts):
                    prefix = ".".join(x for x in (path, "parametrizations", name) if x)
                    yield Computed(module, name, prefix)


def touched(
    model: nn.Module, axes: Mapping[str, Mapping[int, NDArray[np.int64]]]
) -> Iterable[tuple[Computed, dict[int, NDArray[np.int64]], Tensor]]:
    """Parametrised tensors of which parts go: each with the indices that it loses, and its value before."""
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for tensor in computed(model):
        before = tensor.value()
        parts = [n for n in axes if n.startswith(f"{tensor.prefix}.") and shapes[n] == tuple(before.shape)]
        if parts:
            yield tensor, dict(axes[parts[0]]), before
