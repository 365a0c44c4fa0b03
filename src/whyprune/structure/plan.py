"""`Plan`: which units go, in terms that need no tracing to replay, and how it is written to `plan.json`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from whyprune.errors import FormatError
from whyprune.models.weights import architecture_fingerprint
from whyprune.structure.network import Network
from whyprune.structure.remove import AttributeValue, attribute_values, cut
from whyprune.structure.units import Unit, removed_indices

Index = Annotated[int, Field(ge=0, le=2**31)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class RemovedIndices(_Frozen):
    """Indices that go from one axis of one parameter or buffer."""

    parameter: str
    axis: Annotated[int, Field(ge=0, le=7)]
    indices: tuple[Index, ...]


class AttributeChange(_Frozen):
    """An integer of a user's module that counts channels, and its new value.

    Attributes:
        module: dotted path of the module.
        attribute: the name of an integer, or of a tuple or list of integers.
        place: the place in that tuple; 0 for a lone integer.
        value: the new number.
    """

    module: str
    attribute: str
    place: Annotated[int, Field(ge=0, le=15)] = 0
    value: Index


class Plan(_Frozen):
    """The units to remove, with what was predicted of it.

    Attributes:
        architecture: fingerprint of the model the plan is for (names, shapes and dtypes of its state).
        units: names of the removed units.
        removed: what that means per parameter and axis.
        attributes: integers in user modules that follow.
        method: how the units were chosen.
        budget: the budget as asked for.
        predicted: the joint effect predicted from the plan's parts; None where a method predicts none.
        macs: of the pruned network, per sample.
        params: of the pruned network.
        bytes: of the pruned network's parameters and buffers.
    """

    schema_version: Literal[1] = 1
    architecture: str
    units: tuple[str, ...]
    removed: tuple[RemovedIndices, ...]
    attributes: tuple[AttributeChange, ...] = ()
    method: str = ""
    budget: dict[str, Any] = {}
    predicted: float | None = None
    macs: int
    params: int
    bytes: int

    def removed_per_group(self) -> dict[str, int]:
        """Group name -> how many of its units go."""
        counts: dict[str, int] = {}
        for name in self.units:
            group = name.rpartition(":")[0]
            counts[group] = counts.get(group, 0) + 1
        return counts

    def __repr__(self) -> str:
        kept = f"{self.macs:,} MACs and {self.params:,} params stay"
        return f"Plan({self.method}: {len(self.units)} units go, {kept})"

    __str__ = __repr__


def make_plan(network: Network, units: Iterable[Unit | str], **about: Any) -> Plan:
    """The plan that removes `units`; `about` fills method, budget and predicted.

    Raises:
        InputError: a unit is unknown, or an axis would be left without channels.
    """
    chosen = network.select(units)
    cost = network.cost(chosen)
    return Plan(
        architecture=architecture_fingerprint(network.model),
        units=tuple(u.name for u in chosen),
        removed=tuple(
            RemovedIndices(parameter=name, axis=axis, indices=tuple(indices.tolist()))
            for (name, axis), indices in sorted(removed_indices(chosen).items())
        ),
        attributes=tuple(
            AttributeChange(module=m, attribute=a, place=p, value=v) for m, a, p, v in attribute_values(network, chosen)
        ),
        macs=cost.macs,
        params=cost.params,
        bytes=cost.bytes,
        **about,
    )


def replay_plan(model: nn.Module, plan: Plan) -> nn.Module:
    """Cuts a fresh instance of the plan's model; nothing is traced and nothing of the plan is executed.

    Raises:
        FormatError: the plan is for another architecture, or names something the model does not have.
    """
    own = architecture_fingerprint(model)
    if own != plan.architecture:
        raise FormatError(
            f"the plan is for another model (its fingerprint is {plan.architecture[:12]}, not {own[:12]}): "
            "build the model exactly as it was before pruning"
        )
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    removed = _checked_indices(plan.removed, {name: tuple(t.shape) for name, t in state.items()})
    return cut(model, removed, _checked_attributes(model, plan.attributes))


def _checked_indices(
    entries: Sequence[RemovedIndices], shapes: Mapping[str, tuple[int, ...]]
) -> dict[tuple[str, int], NDArray[np.int64]]:
    removed: dict[tuple[str, int], NDArray[np.int64]] = {}
    for entry in entries:
        shape = shapes.get(entry.parameter)
        if shape is None or entry.axis >= len(shape):
            raise FormatError(f"the plan cuts {entry.parameter!r} (axis {entry.axis}), which the model does not have")
        indices = np.array(entry.indices, dtype=np.int64)
        valid = len(indices) and len(np.unique(indices)) == len(indices) < shape[entry.axis]
        if (entry.parameter, entry.axis) in removed or not valid or indices.max() >= shape[entry.axis]:
            raise FormatError(
                f"the plan's indices for {entry.parameter!r} (axis {entry.axis}, size {shape[entry.axis]}) "
                "are not distinct, in range and fewer than all: the file is corrupt"
            )
        removed[entry.parameter, entry.axis] = np.sort(indices)
    return removed


def _checked_attributes(model: nn.Module, changes: Sequence[AttributeChange]) -> list[AttributeValue]:
    modules = dict(model.named_modules())
    for change in changes:
        held = vars(modules[change.module]).get(change.attribute) if change.module in modules else None
        numbers = list(held) if isinstance(held, tuple | list) else [held]
        number = numbers[change.place] if change.place < len(numbers) else None
        if type(number) is not int or change.attribute.startswith("_") or change.value > number:
            raise FormatError(
                f"the plan sets {change.module}.{change.attribute} to {change.value}, which is no integer "
                "of the model that could shrink to it: the file is corrupt or for another model"
            )
    return [(c.module, c.attribute, c.place, c.value) for c in changes]
