"""Removal: a physically smaller module of the user's own class, and the masked original it must equal."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from whyprune.structure.attributes import update_widths
from whyprune.structure.network import Network
from whyprune.structure.units import Unit, removed_indices

Removed = Mapping[tuple[str, int], NDArray[np.int64]]
AttributeValue = tuple[str, str, int]


def remove(network: Network, units: Iterable[Unit | str]) -> nn.Module:
    """A new, smaller module without `units`; the user's model is not changed.

    Args:
        network: a traced model.
        units: units of `network`, or their names.

    Raises:
        InputError: a unit is unknown, or an axis would be left without channels.
    """
    chosen = network.select(units)
    return cut(network.model, removed_indices(chosen), attribute_values(network, chosen))


def attribute_values(network: Network, units: Sequence[Unit]) -> list[AttributeValue]:
    """(module, attribute, new value) of every integer in user modules that counts removed channels."""
    gone = {unit.label for unit in units}
    return [(r.module, r.attribute, r.value - len(r.labels & gone)) for r in network.attributes if r.labels & gone]


def cut(model: nn.Module, removed: Removed, attributes: Iterable[AttributeValue]) -> nn.Module:
    """A copy of `model` without the indices in `removed` (parameter, axis) -> indices."""
    smaller = copy.deepcopy(model)
    by_name: dict[str, dict[int, NDArray[np.int64]]] = {}
    for (name, axis), indices in removed.items():
        by_name.setdefault(name, {})[axis] = indices
    _replace(smaller, {name: _without(axes) for name, axes in by_name.items()})
    update_widths(smaller)
    for path, attribute, value in attributes:
        setattr(smaller.get_submodule(path), attribute, value)
    return smaller


def masked(network: Network, units: Iterable[Unit | str]) -> nn.Module:
    """A copy of the original under do(units := 0), at its full size: every coupled slice is zero.

    Zero on the writing side makes the channel zero before its activation, zero on the reading side makes
    every reader see zero, whatever the activation does with it. Variances stay, so that normalisation stays
    finite.
    """
    chosen = network.select(units)
    original = copy.deepcopy(network.model)
    by_name: dict[str, dict[int, NDArray[np.int64]]] = {}
    for (name, axis), indices in removed_indices(chosen).items():
        if not name.endswith("running_var"):
            by_name.setdefault(name, {})[axis] = indices
    _replace(original, {name: _zeroed(axes) for name, axes in by_name.items()})
    return original


def _without(axes: Mapping[int, NDArray[np.int64]]) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        for axis, indices in axes.items():
            keep = np.setdiff1d(np.arange(tensor.shape[axis]), indices)
            tensor = tensor.index_select(axis, torch.as_tensor(keep, device=tensor.device))
        return tensor.clone()

    return change


def _zeroed(axes: Mapping[int, NDArray[np.int64]]) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        for axis, indices in axes.items():
            tensor.index_fill_(axis, torch.as_tensor(indices, device=tensor.device), 0)
        return tensor

    return change


def _replace(model: nn.Module, changes: Mapping[str, Callable[[Tensor], Tensor]]) -> None:
    """Changes parameters and buffers in place of the old ones; shared ones stay shared."""
    old = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    new: dict[int, Tensor] = {}
    for name, change in changes.items():
        tensor = change(old[name].detach())
        if isinstance(old[name], nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=old[name].requires_grad)
        new[id(old[name])] = tensor
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for key, value in table.items():
                if value is not None and id(value) in new:
                    table[key] = new[id(value)]  # type: ignore[assignment]
