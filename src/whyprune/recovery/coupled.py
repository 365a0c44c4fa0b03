"""All weights that go with a unit, as one vector a unit: their norms, without a loop over units."""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from whyprune.errors import InputError
from whyprune.structure.network import Network
from whyprune.structure.units import Group

Axis = tuple[str, int]
Numbers = NDArray[np.int64]


class CoupledWeights:
    """The parameters' entries that go with every unit of a model.

    An entry that two slices of a unit share counts once. Buffers do not count: they are not trained.

    Attributes:
        sizes: (units,), how many weights go with each, in the order of `network.units`.

    Raises:
        InputError: the model is not of the network's architecture, or has no units.
    """

    sizes: Tensor

    def __init__(self, model: nn.Module, network: Network) -> None:
        """Reads the slices of all units.

        Args:
            model: whose weights count; its parameters must stay the same objects.
            network: a trace of the same architecture.
        """
        if not network.units:
            raise InputError("the network has no removable unit: there is nothing to penalise")
        named = dict(model.named_parameters(remove_duplicate=False))
        numbers = {key: own for key, own in unit_numbers(model, network).items() if key[0] in named}
        axes: dict[str, list[int]] = defaultdict(list)
        for name, axis in numbers:
            axes[name].append(axis)
        self._tensors = [_Tensor(named[n], {a: numbers[n, a] for a in sorted(own)}) for n, own in axes.items()]
        places = {(n, a): (i, a) for i, (n, own) in enumerate(axes.items()) for a in own}
        self._groups = [_places(group, places, self._tensors) for group in network.groups]
        self._counts = [len(group.units) for group in network.groups]
        self._zero = next(iter(named.values())).detach().new_zeros(())
        with torch.no_grad():
            self.sizes = self._gathered([tensor.per_index(torch.ones_like(tensor.value)) for tensor in self._tensors])

    def squared_norms(self) -> Tensor:
        """(units,), the sum of squares of every unit's weights, in the order of `network.units`."""
        return self._gathered([tensor.per_index(tensor.value.square()) for tensor in self._tensors])

    def norms(self) -> Tensor:
        """(units,), the Euclidean norm of every unit's weights; where it is 0 its gradient is 0 as well."""
        squares = self.squared_norms()
        some = squares > 0
        return torch.where(some, torch.where(some, squares, 1).sqrt(), 0)

    def _gathered(self, sums: list[dict[int, Tensor]]) -> Tensor:
        """Of the sums per index of every axis those per unit."""
        found = []
        for count, places in zip(self._counts, self._groups, strict=True):
            parts = [sums[number][axis][indices].sum(1) for number, axis, indices in places]
            found.append(torch.stack(parts).sum(0) if parts else self._zero.expand(count))
        return torch.cat(found)


class _Tensor:
    """A parameter of which axes carry units, and which of its entries count for which axis."""

    def __init__(self, value: nn.Parameter, owners: dict[int, Numbers]) -> None:
        self.value = value
        self._axes = list(owners)
        self._rest = [dim for dim in range(value.dim()) if dim not in owners]
        self._fresh = {
            axis: None if mask is None else torch.from_numpy(mask).to(value.device, value.dtype)
            for axis, mask in zip(self._axes, _fresh(list(owners.values())), strict=True)
        }

    def per_index(self, entries: Tensor) -> dict[int, Tensor]:
        """Axis -> for each of its indices the sum of the entries that count there."""
        reduced = entries.sum(self._rest) if self._rest else entries
        found = {}
        for place, axis in enumerate(self._axes):
            others = [other for other in range(len(self._axes)) if other != place]
            mask = self._fresh[axis]
            counted = reduced if mask is None else reduced * mask
            found[axis] = counted.sum(others) if others else counted
        return found


def unit_numbers(model: nn.Module, network: Network) -> dict[Axis, Numbers]:
    """(parameter or buffer, axis) -> for each index the number of its unit in `network.units`, -1 for none.

    Raises:
        InputError: the model lacks one of these, or has it in another size.
    """
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in (
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        )
    }
    found: dict[Axis, Numbers] = {}
    for number, unit in enumerate(network.units):
        for name, axis, indices in unit.slices:
            if (name, axis) not in found:
                expected = tuple(network.cost.shapes[name])
                if shapes.get(name) != expected:
                    raise InputError(
                        f"the model is not the traced network: {name} is {shapes.get(name, 'missing')}, "
                        f"in the network {expected}; give the trace of this model as network=…"
                    )
                found[name, axis] = np.full(expected[axis], -1, dtype=np.int64)
            found[name, axis][list(indices)] = number
    return found


def _fresh(owners: list[Numbers]) -> Iterable[NDArray[np.bool_] | None]:
    """Per axis, over all axes at once, which entries no earlier axis counts for the same unit; None for all."""
    for place, own in enumerate(owners):
        mask = np.ones([len(numbers) for numbers in owners], dtype=bool)
        for earlier in range(place):
            same = np.equal.outer(owners[earlier], own) & (own >= 0)
            mask &= ~same.reshape([len(n) if i in (earlier, place) else 1 for i, n in enumerate(owners)])
        yield None if mask.all() else mask


def _places(group: Group, places: dict[Axis, tuple[int, int]], tensors: list[_Tensor]) -> list[tuple[int, int, Tensor]]:
    """(number of the parameter, axis, (units, k) indices) of every axis of a group; k is the same for all units."""
    rows: dict[Axis, list[tuple[int, ...]]] = defaultdict(list)
    for unit in group.units:
        for piece in unit.slices:
            if (piece.parameter, piece.axis) in places:
                rows[piece.parameter, piece.axis].append(piece.indices)
    return [
        (*places[key], torch.tensor(indices, dtype=torch.int64, device=tensors[places[key][0]].value.device))
        for key, indices in rows.items()
    ]
