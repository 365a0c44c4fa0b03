"""`Widening`: which units were copied, in terms that need no tracing to replay; a plan holds it where there is one."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from whyprune.errors import FormatError
from whyprune.models.weights import architecture_fingerprint
from whyprune.structure.attributes import update_widths
from whyprune.structure.axes import Axis
from whyprune.structure.capture import first_line
from whyprune.structure.changes import CORRUPT, AttributeChange, Frozen, Index, checked_attributes, shapes_of
from whyprune.structure.intact import misfit
from whyprune.structure.remove import AttributeValue, changed, placed

Order = NDArray[np.int64]
MOST_TIMES = 4
"""A group is never made wider than so many times: a file cannot ask for more memory than that squared."""


class WidenedAxis(Frozen):
    """One axis of one parameter or buffer: for every index after the widening, the index it is a copy of."""

    parameter: str
    axis: Annotated[int, Field(ge=0, le=7)]
    order: tuple[Index, ...]


class Widening(Frozen):
    """Units that were copied before anything was removed.

    Attributes:
        architecture: fingerprint of the model before.
        groups: group -> units it gained.
        axes: what that means per parameter and axis.
        attributes: integers in user modules that follow.
    """

    architecture: str
    groups: dict[str, Annotated[int, Field(ge=1)]]
    axes: tuple[WidenedAxis, ...]
    attributes: tuple[AttributeChange, ...] = ()


def grown(model: nn.Module, orders: Mapping[Axis, Order], attributes: Iterable[AttributeValue]) -> nn.Module:
    """A copy of a model whose axes hold, index by index, copies of what `orders` names."""
    wider = changed(model, orders, _gathered)
    for path, attribute, place, value in attributes:
        module = wider.get_submodule(path)
        setattr(module, attribute, placed(getattr(module, attribute), place, value))
    update_widths(wider)
    return wider


def replay_widening(model: nn.Module, widening: Widening) -> nn.Module:
    """Widens a fresh instance of the model; nothing is traced and nothing of the record is executed.

    Raises:
        FormatError: the record is for another architecture, or names something the model does not have.
    """
    own = architecture_fingerprint(model)
    if own != widening.architecture:
        raise FormatError(
            f"the plan widens another model (its fingerprint is {widening.architecture[:12]}, not {own[:12]}): "
            "build the model exactly as it was before pruning"
        )
    shapes = shapes_of(model)
    orders = _checked_orders(widening.axes, shapes)
    attributes = checked_attributes(model, widening.attributes, lambda old, new: old <= new, "grow")
    try:
        wider = grown(model, orders, attributes)
        broken = misfit(model, wider) or _not_as_written(shapes, orders, shapes_of(wider))
    except (ArithmeticError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise FormatError(f"the model cannot be widened as the plan says ({first_line(error)}): {CORRUPT}") from error
    if broken:
        raise FormatError(f"the plan widens {broken!r} to parts that do not fit: {CORRUPT}")
    return wider


def _gathered(tensor: Tensor, orders: Mapping[int, NDArray[Any]]) -> Tensor:
    """The tensor with copies along its axes, in the memory layout that it has."""
    layout = sorted(range(tensor.dim()), key=tensor.stride().__getitem__, reverse=True)
    wider = tensor.permute(layout)
    for axis, order in orders.items():
        wider = wider.index_select(layout.index(axis), torch.as_tensor(order, device=tensor.device))
    return wider.clone(memory_format=torch.contiguous_format).permute([layout.index(d) for d in range(tensor.dim())])


def _checked_orders(entries: Sequence[WidenedAxis], shapes: Mapping[str, tuple[int, ...]]) -> dict[Axis, Order]:
    orders: dict[Axis, Order] = {}
    for entry in entries:
        shape = shapes.get(entry.parameter)
        if shape is None or entry.axis >= len(shape):
            raise FormatError(f"the plan widens {entry.parameter!r} (axis {entry.axis}), which the model does not have")
        order, size = np.array(entry.order, dtype=np.int64), shape[entry.axis]
        whole = size < len(order) <= MOST_TIMES * size and order.max() < size and len(np.unique(order)) == size
        if (entry.parameter, entry.axis) in orders or not whole:
            raise FormatError(
                f"the plan's copies for {entry.parameter!r} (axis {entry.axis}, size {size}) do not hold every index, "
                f"in at most {MOST_TIMES} times the size: {CORRUPT}"
            )
        orders[entry.parameter, entry.axis] = order
    most = MOST_TIMES**2 * sum(map(math.prod, shapes.values()))
    if sum(math.prod(_sizes(name, shape, orders)) for name, shape in shapes.items()) > most:
        raise FormatError(f"the plan asks for more than {MOST_TIMES**2} times the model's size: {CORRUPT}")
    return orders


def _sizes(name: str, shape: tuple[int, ...], orders: Mapping[Axis, Order]) -> tuple[int, ...]:
    return tuple(len(orders[name, axis]) if (name, axis) in orders else size for axis, size in enumerate(shape))


def _not_as_written(
    before: Mapping[str, tuple[int, ...]], orders: Mapping[Axis, Order], after: Mapping[str, tuple[int, ...]]
) -> str:
    return next((name for name, shape in before.items() if after.get(name) != _sizes(name, shape, orders)), "")
