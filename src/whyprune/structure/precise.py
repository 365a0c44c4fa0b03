"""Precision: half-precision numbers as single ones, and the same network in double precision.

Networks in fp16 and bf16 are measured and solved in single precision (`Replay`) and trained in it (`single`), and get
their own types back. Double precision tells a wrong result from rounding that a deep network has amplified.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from whyprune.data.batches import Batch
from whyprune.structure.copies import duplicate
from whyprune.structure.network import Network

HALF = frozenset({torch.float16, torch.bfloat16})


def in_double(network: Network) -> Network:
    """A copy with parameters, constants and example inputs in double precision.

    Raises:
        RuntimeError: the model's code insists on its own precision.
    """
    found = operations_in_double(network)
    with torch.no_grad():
        returned = found.example.call(found.model)
    return replace(found, graph=replace(found.graph, returned=returned))


def operations_in_double(network: Network) -> Network:
    """As `in_double`, for the operations alone: the model's own code may not run in it."""
    graph, batch = network.graph, doubled(network.example)
    constants = {name: _double(t) for name, t in graph.constants.items()}
    graph = replace(
        graph, constants=constants, returned=pytree.tree_map(_double, graph.returned), precision=torch.float64
    )
    return replace(network, model=duplicate(network.model).double(), example=batch, graph=graph)


def doubled(batch: Batch) -> Batch:
    """The batch with its floats in double precision."""
    return replace(batch, args=pytree.tree_map(_double, batch.args), kwargs=pytree.tree_map(_double, batch.kwargs))


def at_least(value: Any, precision: torch.dtype | None) -> Any:
    """A tensor or a type: of floats less precise than `precision` that one, all else as it is."""
    if precision is None or not isinstance(value, Tensor | torch.dtype):
        return value
    kind = value.dtype if isinstance(value, Tensor) else value
    if not kind.is_floating_point or torch.finfo(kind).bits >= torch.finfo(precision).bits:
        return value
    return value.to(precision) if isinstance(value, Tensor) else precision


def arguments_at_least(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], precision: torch.dtype | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """An operation's arguments, where types that they name are raised to a precision."""
    if precision is None:
        return args, dict(kwargs)
    given: tuple[tuple[Any, ...], dict[str, Any]] = fx.node.map_aggregate(
        (args, dict(kwargs)), lambda value: at_least(value, precision)
    )
    return tuple(given[0]), dict(given[1])


def has_half(model: nn.Module) -> bool:
    """Whether any parameter or buffer is in half precision."""
    return any(t.dtype in HALF for t in (*model.parameters(), *model.buffers()))


def single(model: nn.Module, batch: Batch) -> nn.Module:
    """A copy whose half-precision numbers are single ones, or a plain copy where it does not run so.

    Args:
        model: any network; not changed.
        batch: inputs that tell whether the model's code insists on its own precision.
    """
    copied = duplicate(model)
    if has_half(model):
        with torch.no_grad(), suppress(RuntimeError):
            _converted(copied, lambda _, t: at_least(t, torch.float32))
            in_single(batch).call(duplicate(copied).eval())
            return copied
        return duplicate(model)
    return copied


def with_types_of(model: nn.Module, original: nn.Module) -> nn.Module:
    """The model, in place, with every parameter and buffer in the type that it has in `original`."""
    kinds = {name: t.dtype for name, t in (*original.named_parameters(), *original.named_buffers())}
    return _converted(model, lambda name, t: t.to(kinds.get(name, t.dtype)))


def in_single(batch: Batch) -> Batch:
    """The batch with its half-precision floats in single precision."""

    def widened(value: Any) -> Any:
        return at_least(value, torch.float32)

    return replace(batch, args=pytree.tree_map(widened, batch.args), kwargs=pytree.tree_map(widened, batch.kwargs))


def _converted(model: nn.Module, change: Callable[[str, Tensor], Tensor]) -> nn.Module:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        tensor.data = change(name, tensor.data)
    return model


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
