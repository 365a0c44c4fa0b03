"""From whatever a network returns to its logits."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from whyprune.errors import InputError


def logits_of(output: Any) -> Tensor:
    """The logits in a network's output.

    Args:
        output: a tensor; a tuple or list, of which the first tensor is taken (auxiliary heads follow it); or
            a dict or object with `logits`, such as a transformers `ModelOutput`.

    Returns:
        The logits, of the shape the network gives them, usually (B, K).

    Raises:
        InputError: no logits are found in the output.
    """
    if isinstance(output, Tensor):
        return output
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(named, Tensor):
        return named
    if isinstance(output, Sequence):
        for entry in output:
            if isinstance(entry, Tensor):
                return entry
    raise InputError(
        f"no logits in the network's output ({_description(output)}): return a tensor, a tuple that starts "
        "with one, or a dict with the key 'logits'; a backbone needs its classification head"
    )


def tensors_of(output: Any) -> list[Tensor]:
    """All tensors in a network's output, in a fixed order."""
    return [t for t in pytree.tree_leaves(output) if isinstance(t, Tensor)]


def _description(output: Any) -> str:
    kind = type(output).__name__
    return f"{kind} with keys {sorted(map(str, output))}" if isinstance(output, Mapping) else kind
