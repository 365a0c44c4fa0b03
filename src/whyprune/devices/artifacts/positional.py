"""A model with keyword inputs, constants and nested outputs as a function of tensors: what every exporter takes."""

import copy
from typing import Any

from torch import Tensor, nn

from whyprune.data.batches import Batch
from whyprune.data.outputs import tensors_of
from whyprune.devices.evaluation import device_of


class Positional(nn.Module):
    """Takes the batch's tensors, positional ones first; gives the outputs' tensors. All else is fixed."""

    def __init__(self, model: nn.Module, example: Batch) -> None:
        super().__init__()
        self.model = model
        self._args = [None if isinstance(a, Tensor) else (a,) for a in example.args]
        self._kwargs = {k: None if isinstance(v, Tensor) else (v,) for k, v in example.kwargs.items()}

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The batch's tensors to the outputs' tensors."""
        given = iter(tensors)

        def value(fixed: tuple[Any] | None) -> Any:
            return next(given) if fixed is None else fixed[0]

        args = [value(a) for a in self._args]
        return tuple(tensors_of(self.model(*args, **{k: value(v) for k, v in self._kwargs.items()})))


def positional(model: nn.Module, example: Batch) -> tuple[Positional, tuple[Tensor, ...]]:
    """The model on the CPU as a function of tensors, and the example's tensors; no gradients are kept."""
    if device_of(model).type != "cpu":
        model = copy.deepcopy(model).cpu()
    return Positional(model, example).train(model.training), tuple(t.detach() for t in example.to("cpu").tensors())
