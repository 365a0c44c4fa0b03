"""Reading ATen operations off a captured graph: names, arguments, sizes, places in the user's code."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx

from whyprune.structure.capture import module_path, user_frame

ASSERTED = "_assert_tensor_metadata"
"""What the exporter notes of types and devices; here types may be others."""

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
AFFINE = (*CONVOLUTIONS, *TRANSPOSED, "linear")
"""Operations with a weight per channel."""


def where(node: fx.Node) -> str:
    """A node's place for a person: module path and line of user code."""
    path = module_path(node)
    return f"{path} ({user_frame(node)})" if path else user_frame(node)


def shape_of(node: fx.Node) -> tuple[Any, ...]:
    """The shape of a node's tensor; free dimensions are symbolic."""
    return tuple(node.meta["val"].shape)


def sizes(node: fx.Node) -> tuple[int, ...]:
    """The shape of a node's tensor for one sample: free dimensions are those of a batch of 1."""
    return tuple(at_batch_one(size) for size in shape_of(node))


def at_batch_one(size: Any) -> int:
    """A size that may depend on the batch, for a batch of 1."""
    return at_batch(size, 1)


def at_batch(size: Any, batch: int) -> int:
    """A size that may depend on the batch, for a batch of a size."""
    return size if isinstance(size, int) else _at(size.node.expr, batch)


@cache
def _at(expression: Any, batch: int) -> int:
    return int(expression.subs(dict.fromkeys(expression.free_symbols, batch)))


def name_of(node: fx.Node) -> str:
    """The operation's name: `conv2d` for `aten.conv2d.default`, `relu` for `aten.relu_.default`."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return str(getattr(node.target, "__name__", node.target))
    name = str(schema.name).split("::")[-1]
    return name if name.startswith("__") else name.rstrip("_")


def bind(node: fx.Node) -> dict[str, Any]:
    """An operation's arguments by name, with defaults filled in."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {str(i): a for i, a in enumerate(node.args)}
    bound: dict[str, Any] = {}
    for position, argument in enumerate(schema.arguments):
        if position < len(node.args):
            bound[argument.name] = node.args[position]
        else:
            bound[argument.name] = node.kwargs.get(argument.name, argument.default_value)
    return bound


def position_of(node: fx.Node, argument: str) -> int:
    """The position of an argument in the operation's schema."""
    return [a.name for a in node.target._schema.arguments].index(argument)  # type: ignore[union-attr]


def name_at(node: fx.Node, position: int) -> str:
    """The name of the argument at a position of the operation's schema."""
    return str(node.target._schema.arguments[position].name)  # type: ignore[union-attr]


def functional(target: Any) -> Any:
    """The operation that returns what an in-place one would have written; kept values stay as they are."""
    if target is torch.ops.aten.view.default:  # a view asks for one memory layout; the value is the same
        return torch.ops.aten.reshape.default
    schema = getattr(target, "_schema", None)
    if schema is None or not schema.name.endswith("_") or schema.name.endswith("__"):
        return target
    packet = getattr(torch.ops.aten, schema.name.split("::")[-1].rstrip("_"), None)
    return target if packet is None else getattr(packet, target._overloadname)


def tensors(value: Any) -> list[Tensor]:
    """The tensors that an operation gives."""
    if isinstance(value, Tensor):
        return [value]
    return [v for v in value if isinstance(v, Tensor)] if isinstance(value, tuple | list) else []


def is_pointwise(node: fx.Node) -> bool:
    """Whether an operation treats every value by itself, as torch's own tag says."""
    return torch.Tag.pointwise in getattr(node.target, "tags", ())


def arguments(node: fx.Node, value_of: Callable[[fx.Node], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """An operation's arguments with every node replaced by its value."""
    args: Any = fx.node.map_arg(node.args, value_of)
    kwargs: Any = fx.node.map_arg(node.kwargs, value_of)
    return tuple(args), dict(kwargs)


def einsum_letters(equation: str, operands: Sequence[fx.Node]) -> list[tuple[str, ...]]:
    """Per operand one letter per dimension; those behind `...` are numbered from the last."""
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    return [_letters(term, len(shape_of(node))) for term, node in zip(terms, operands, strict=True)]


def _letters(term: str, rank: int) -> tuple[str, ...]:
    hidden = [f".{i:03}" for i in range(rank - len(term.replace("...", "")), 0, -1)]
    return tuple(x for c in term.replace("...", ".") for x in (hidden if c == "." else [c]))
