"""Removal: a physically smaller module of the user's own class, and the masked original it must equal."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from whyprune.data.batches import Batch
from whyprune.data.outputs import tensors_of
from whyprune.structure.attributes import update_widths
from whyprune.structure.axes import Axis
from whyprune.structure.blocks import lies_in, state_of
from whyprune.structure.copies import duplicate
from whyprune.structure.network import Network
from whyprune.structure.parametrized import touched
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.units import Unit, removed_indices

Indices = NDArray[np.int64]
Removed = Mapping[Axis, Indices]
AttributeValue = tuple[str, str, int, int]
"""Module, attribute, place in it, new value."""
Change = Callable[[Tensor, Mapping[int, NDArray[Any]]], Tensor]


@overload
def remove(start: State, units: Iterable[Unit | str]) -> State: ...
@overload
def remove(start: Network, units: Iterable[Unit | str]) -> nn.Module: ...
def remove(start: Network | State, units: Iterable[Unit | str]) -> nn.Module | State:
    """A new, smaller module without `units`; the model that is there is not changed.

    Args:
        start: a traced model, or a state that lacks some units already.
        units: units of the network, or their names; those that a state lacks already may be among them.

    Returns:
        Of a network the module; of a state the state that lacks `units` as well.

    Raises:
        InputError: a unit is unknown, or an axis would be left without channels.
    """
    if isinstance(start, State):
        names = start.network.names_of(units) | {unit.name for unit in start.removed}
        return _removed_further(start, start.network.select(names))
    start = State.of(start).network
    removal = removal_of(start, start.select(units))
    return cut(start.model, removal.removed, removal.attributes, removal.blocks)


def _removed_further(state: State, units: Sequence[Unit]) -> State:
    """The state without `units`, which hold all that it lacks already."""
    before, removal = removed_indices(state.removed), removal_of(state.network, units)
    further = {}
    for key, indices in removal.removed.items():
        size = state.network.cost.shapes[key[0]][key[1]]
        kept = np.setdiff1d(np.arange(size), before.get(key, np.array([], dtype=np.int64)))
        fresh = np.flatnonzero(np.isin(kept, indices))
        if len(fresh):
            further[key] = fresh
    model = cut(state.model, further, removal.attributes, removal.blocks)
    return State(state.network, model, tuple(units), likeness=False)


@dataclass(frozen=True)
class Removal:
    """What has to change in a module for units to go.

    Attributes:
        removed: (parameter, axis) -> indices that go, of what lies in no bypassed block.
        attributes: integers in user modules that follow.
        blocks: residual blocks that go as a whole.
    """

    removed: Removed
    attributes: tuple[AttributeValue, ...]
    blocks: tuple[str, ...]


def removal_of(network: Network, units: Sequence[Unit]) -> Removal:
    """What has to change for units to go, which `Network.select` has accepted."""
    blocks = tuple(block.name for block in network.bypassed(units))
    return Removal(
        {key: indices for key, indices in removed_indices(units).items() if not lies_in(key[0], blocks)},
        tuple(value for value in attribute_values(network, units) if not lies_in(value[0], blocks)),
        blocks,
    )


def attribute_values(network: Network, units: Sequence[Unit]) -> list[AttributeValue]:
    """(module, attribute, place, new value) of every integer in user modules that counts removed channels."""
    gone = {unit.label for unit in units}
    lost = [(r, sum(label in gone for label in r.labels)) for r in network.attributes]
    return [(r.module, r.attribute, r.place, r.value - count) for r, count in lost if count]


def cut(
    model: nn.Module, removed: Removed, attributes: Iterable[AttributeValue], blocks: Collection[str] = ()
) -> nn.Module:
    """A copy of `model` without `removed`, (parameter, axis) -> indices; `blocks` hand on what they get."""
    smaller = changed(model, removed, _without)
    for path in blocks:
        smaller.set_submodule(path, nn.Identity().train(model.training))
    for path, attribute, place, value in attributes:
        module = smaller.get_submodule(path)
        setattr(module, attribute, placed(getattr(module, attribute), place, value))
    update_widths(smaller)
    return smaller


def placed(held: Any, place: int, value: int) -> Any:
    """An attribute with one of its integers changed."""
    if not isinstance(held, tuple | list):
        return value
    return type(held)([value if i == place else old for i, old in enumerate(held)])


def masked(network: Network, units: Iterable[Unit | str]) -> nn.Module:
    """A copy of the original under do(units := 0), at its full size: every coupled slice is zero.

    Zero on the writing side makes the channel zero before its activation, zero on the reading side makes
    every reader see zero, whatever the activation does with it. Variances stay, so that normalisation stays
    finite. Operations that mix channels without a weight per channel (layer norm, softmax, a mean, a product of
    two tensors) leave the channels out: their statistics run over those that are kept. A residual block that goes as a
    whole has all its parameters at zero: then it hands on what it gets.
    """
    network = State.of(network).network
    chosen = network.select(units)
    model = zeroed(network, chosen)
    bypassed = {name for block in network.bypassed(chosen) for name in block.groups}
    replay = Replay(network, model, excluded=[unit for unit in chosen if unit.group not in bypassed])
    return Excluding(model, replay) if replay.excludes else model


def zeroed(network: Network, units: Iterable[Unit | str]) -> nn.Module:
    """A copy of the original with every coupled slice at zero: statistics over channels count the zeros.

    This is `masked`, but where statistics run over the channels (`Unit.marks`): there setting a channel to zero and
    removing it are two things.
    """
    chosen = network.select(units)
    gone = removed_indices(chosen)
    kept = {key: indices for key, indices in gone.items() if not key[0].endswith("running_var")}
    model = changed(network.model, kept, _zeros)
    idle = state_of(network.bypassed(chosen))
    with torch.no_grad():
        for parameter in (p for name, p in model.named_parameters() if name in idle):
            parameter.zero_()
    return model


class Excluding(nn.Module):
    """The original with channels at zero, which operations without a weight per channel leave out as well."""

    def __init__(self, zeroed: nn.Module, replay: Replay) -> None:
        super().__init__()
        self.zeroed = zeroed
        self.replay = replay

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns."""
        found = self.replay.output(self.replay.run(Batch(args, kwargs), keep=()))
        kinds = iter([t.dtype for t in tensors_of(self.replay.network.graph.returned)])
        return pytree.tree_map_only(Tensor, lambda tensor: tensor.to(next(kinds, tensor.dtype)), found)


def _without(tensor: Tensor, axes: Mapping[int, Indices]) -> Tensor:
    order = sorted(
        range(tensor.dim()), key=tensor.stride().__getitem__, reverse=True
    )  # the memory layout, such as channels_last
    smaller = tensor.permute(order)
    for axis, indices in axes.items():
        keep = np.setdiff1d(np.arange(tensor.shape[axis]), indices)
        smaller = smaller.index_select(order.index(axis), torch.as_tensor(keep, device=tensor.device))
    return smaller.clone(memory_format=torch.contiguous_format).permute([order.index(d) for d in range(tensor.dim())])


def _zeros(tensor: Tensor, axes: Mapping[int, Indices]) -> Tensor:
    tensor = tensor.clone()
    for axis, indices in axes.items():
        tensor.index_fill_(axis, torch.as_tensor(indices, device=tensor.device), 0)
    return tensor


def changed(model: nn.Module, removed: Mapping[Axis, NDArray[Any]], change: Change) -> nn.Module:
    """A copy of a model with parameters and buffers changed; shared ones stay shared.

    Args:
        model: stays as it is.
        removed: (parameter, axis) -> what `change` is told of it: the indices that go.
        change: from a tensor, and what it is told of each of its axes, to the new tensor.
    """
    axes: dict[str, dict[int, NDArray[Any]]] = {}
    for (name, axis), indices in removed.items():
        axes.setdefault(name, {})[axis] = indices
    copied = duplicate(model)
    computed = [(tensor, change(before, lost)) for tensor, lost, before in touched(copied, axes)]
    state = {**dict(copied.named_parameters()), **dict(copied.named_buffers())}
    for name, lost in axes.items():
        # In place: the tensor's class, its own attributes, and everything that shares it stay as they are.
        state[name].data = change(state[name].detach(), lost)
    for tensor, value in computed:
        tensor.set(value)
    return copied
