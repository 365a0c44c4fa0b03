"""Masks of units: soft or hard, held while the other units train.

Setting filters to zero and letting training go on is soft filter pruning (He et al., IJCAI 2018) [P]; here a unit is
masked wherever it is written and read, so that a masked unit and a removed one give the same network [I].
"""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from whyprune.errors import InputError
from whyprune.recovery.coupled import unit_numbers
from whyprune.recovery.penalty import PenaltyFactory
from whyprune.structure.blocks import state_of
from whyprune.structure.network import Network
from whyprune.structure.units import Unit


class UnitMasks:
    """A factor per unit, 1 at first, with which `apply` multiplies everything that goes with the unit.

    With factor 0 the model gives what it gives once `remove` has taken the unit away, where no statistics run over the
    channels (`Unit.marks`). Residual blocks of which all units have factor 0 hand on what they get. Variances of batch
    norm stay as they are, and buffers change where the factor is 0 alone.

    Raises:
        InputError: the model is not of the network's architecture, or computes a tensor of a unit from others.
    """

    def __init__(self, model: nn.Module, network: Network) -> None:
        """Reads the slices of all units.

        Args:
            model: what is masked in place; its parameters must stay the same objects.
            network: a trace of the same architecture.
        """
        self._model, self._network = model, network
        self._numbers = {unit.name: number for number, unit in enumerate(network.units)}
        self._owners = {k: n for k, n in unit_numbers(model, network).items() if not k[0].endswith("running_var")}
        for name, _ in self._owners:
            if ".parametrizations." in f".{name}":
                raise InputError(f"{name} is a part of a parametrised tensor, which cannot be masked: bake it in first")
        self.factors = np.ones(len(network.units))
        """(units,), in the order of `network.units`."""
        self._changes: list[tuple[Tensor, Tensor]] = []

    def set(self, units: Iterable[Unit | str], value: float) -> None:
        """Gives units another factor; the model changes at the next `apply`.

        Raises:
            InputError: a unit is unknown, or the factor is not finite.
        """
        if not math.isfinite(value):
            raise InputError(f"the factor of a mask is {value}: give a finite number, 0 to mask a unit")
        for name in (unit if isinstance(unit, str) else unit.name for unit in units):
            if name not in self._numbers:
                raise InputError(f"no unit named {name!r}: see network.units for the names")
            self.factors[self._numbers[name]] = value
        self._changes = list(self._changed())

    @torch.no_grad()
    def apply(self) -> None:
        """Multiplies every coupled slice of the model in place."""
        for tensor, factor in self._changes:
            tensor.mul_(factor)

    def _changed(self) -> Iterable[tuple[Tensor, Tensor]]:
        """Tensors and the factors of all their entries, or of the entries along one axis."""
        parameters = dict(self._model.named_parameters(remove_duplicate=False))
        tensors = {**dict(self._model.named_buffers(remove_duplicate=False)), **parameters}
        extended = np.append(self.factors, 1.0)  # the last one is for the number -1: indices of no unit
        for (name, axis), owners in self._owners.items():
            along, tensor = extended[owners], tensors[name]
            along = along if name in parameters else (along != 0).astype(float)
            if tensor.is_floating_point() and (along != 1).any():
                shape = [-1 if dim == axis else 1 for dim in range(tensor.dim())]
                yield tensor, torch.from_numpy(along).to(tensor.device, tensor.dtype).reshape(shape)
        gone = [u for u, factor in zip(self._network.units, self.factors, strict=True) if factor == 0]
        for name in state_of(self._network.bypassed(gone)) & parameters.keys():
            yield parameters[name], parameters[name].new_zeros(())


class HeldMasks:
    """Adds nothing to the loss, and masks units before the first step and after every one."""

    def __init__(self, model: nn.Module, network: Network, units: Iterable[Unit | str]) -> None:
        self._masks = UnitMasks(model, network)
        self._masks.set(units, 0.0)
        self._masks.apply()
        self._zero = next(model.parameters()).detach().new_zeros(())

    def __call__(self) -> Tensor:
        """0."""
        return self._zero

    def after_step(self, step: int, steps: int) -> None:  # noqa: ARG002 - the same at every step
        """Masks the units again."""
        self._masks.apply()


def masking(units: Iterable[Unit | str]) -> PenaltyFactory:
    """A penalty for `recover` that keeps units at zero while the others train.

    Args:
        units: units of the network that `recover` is given or traces, or their names.
    """
    names = tuple(unit if isinstance(unit, str) else unit.name for unit in units)

    def masked_units(model: nn.Module, network: Network) -> HeldMasks:
        return HeldMasks(model, network, names)

    return masked_units
