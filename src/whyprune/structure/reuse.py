"""Operations that may write into their first input: memory traffic is what small layers cost on a CPU."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from whyprune.structure.operations import name_of

_FRESH = frozenset({"conv1d", "conv2d", "conv3d", "linear", "batch_norm", "add"})


def in_place(node: fx.Node) -> Any | None:
    """The in-place form of a ReLU, or of an addition of two tensors of one shape; None for anything else."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or source.op != "call_function" or name_of(source) not in _FRESH:
        return None
    if name_of(node) == "relu":
        return torch.ops.aten.relu_.default
    if name_of(node) == "add" and len(node.args) == 2 and not node.kwargs:
        other = node.args[1]
        if isinstance(other, fx.Node) and other is not source and _alike(source, other):
            return torch.ops.aten.add_.Tensor
    return None


def is_spent(
    source: Any, folded: Mapping[fx.Node, fx.Node], made: Collection[fx.Node], wanted: Collection[fx.Node]
) -> bool:
    """Whether a value was made in this run, has no other reader and is not kept; folded pairs share one value."""
    owners = [source, folded[source]] if source in folded else [source]
    return len(source.users) == 1 and all(n in made and n not in wanted for n in owners)


def _alike(left: fx.Node, right: fx.Node) -> bool:
    a, b = left.meta.get("val"), right.meta.get("val")
    if not isinstance(a, Tensor) or not isinstance(b, Tensor) or a.dtype != b.dtype:
        return False
    return tuple(map(str, a.shape)) == tuple(map(str, b.shape))
