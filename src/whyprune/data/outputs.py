"""One view of every kind of model output."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from whyprune.errors import InputError


def logits_of(output: Any) -> Tensor:
    """The tensor that a model's output is judged by.

    Args:
        output: a tensor, a sequence (its first tensor), or a mapping or object with `logits` (else its first tensor).

    Raises:
        InputError: there is no tensor in it.
    """
    if isinstance(output, Tensor):
        return output
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(named, Tensor):
        return named
    values = (
        output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    )
    for value in values:
        if isinstance(value, Tensor):
            return value
        if isinstance(value, Mapping | tuple | list):
            return logits_of(value)
    raise InputError(
        f"the model returns a {type(output).__name__} without a tensor: return logits, or a dict with them"
    )
