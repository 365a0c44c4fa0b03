"""Batch normalisation folded into the convolution, transposed convolution or linear layer before it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, fx

from whyprune.structure.operations import AFFINE, TRANSPOSED, bind, name_of, shape_of

_OF_NORM = ("weight", "bias", "running_mean", "running_var")


def foldable(operations: Iterable[fx.Node], bound: Mapping[fx.Node, Any]) -> dict[fx.Node, fx.Node]:
    """Normalisation -> the layer before it, whose value goes nowhere else.

    Args:
        operations: a graph's operations.
        bound: the values of parameters, buffers and constants; nothing computed is folded.
    """
    found = {}
    for node in operations:
        if name_of(node) != "batch_norm":
            continue
        norm = bind(node)
        layer = norm["input"]
        fixed = [norm[name] for name in _OF_NORM if norm[name] is not None]
        if norm["training"] or norm["running_mean"] is None or not all(n in bound for n in fixed):
            continue
        if layer.op == "call_function" and name_of(layer) in AFFINE and _writes_dimension_1(layer, bound):
            found[node] = layer
    return found


def _writes_dimension_1(layer: fx.Node, bound: Mapping[fx.Node, Any]) -> bool:
    """The dimension that batch normalisation scales must be the one that the layer writes."""
    own = bind(layer)
    known = own["weight"] in bound and (own["bias"] is None or own["bias"] in bound)
    return known and len(layer.users) == 1 and len(shape_of(layer)) == bound[own["weight"]].dim()


def fold(layer: fx.Node, norm: fx.Node, bound: Mapping[fx.Node, Any]) -> tuple[Tensor, Tensor]:
    """Weight and bias with which the layer alone gives what the normalisation gives."""
    own, after = bind(layer), bind(norm)
    weight = bound[own["weight"]]
    scale = norm_scale(norm, bound.__getitem__)
    bias = -bound[after["running_mean"]] * scale
    if own["bias"] is not None:
        bias = bias + bound[own["bias"]] * scale
    if after["bias"] is not None:
        bias = bias + bound[after["bias"]]
    if name_of(layer) in TRANSPOSED:
        return _scaled_transposed(weight, scale), bias
    return weight * scale.reshape(-1, *[1] * (weight.dim() - 1)), bias


def norm_scale(norm: fx.Node, value: Callable[[fx.Node], Tensor]) -> Tensor:
    """What a batch normalisation with statistics of its own multiplies every channel by, (channels,).

    Args:
        norm: the operation.
        value: of a parameter or buffer.
    """
    bound = bind(norm)
    scale: Tensor = (value(bound["running_var"]) + bound["eps"]).rsqrt()
    return scale if bound["weight"] is None else scale * value(bound["weight"])


def _scaled_transposed(weight: Tensor, scale: Tensor) -> Tensor:
    """A weight (in, out / groups, *kernel) with every output channel times its scale, (out,)."""
    by_group = scale.reshape(-1, 1, weight.shape[1], *[1] * (weight.dim() - 2))
    return (weight.reshape(len(by_group), -1, *weight.shape[1:]) * by_group).flatten(0, 1)
