"""Writes refitted weights into a module so that it computes them in evaluation and can still be fine-tuned."""

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from whyprune.repair.obstacles import sources
from whyprune.repair.rows import Layout, layout_of
from whyprune.structure.operations import bind
from whyprune.structure.parametrized import TINY
from whyprune.structure.replay import Replay


@dataclass(frozen=True)
class Refitted:
    """New effective weights of one operation, normalisation folded in, and the moments of its output before bias.

    Attributes:
        node: the operation.
        weight: of the weight's shape.
        bias: (O,).
        mean, variance: of the operation's output under `weight`, without bias, over calibration images; (O,).
    """

    node: fx.Node
    weight: Tensor
    bias: Tensor
    mean: Tensor
    variance: Tensor


def write(replay: Replay, model: nn.Module, refitted: Refitted) -> None:
    """Sets the parameters of `model` (a copy of the replay's own model)."""
    names = replay.network.graph.state_names
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    bound = bind(refitted.node)
    norm = replay.producers.get(refitted.node)
    with torch.no_grad():
        bias = None if bound["bias"] is None else state[names[bound["bias"].name]]
        held = [state[names[source.name]] for source in sources(bound["weight"])]
        if len(held) > 1:
            write_direction_and_length(held[0], held[1], int(bind(bound["weight"])["dim"]), refitted.weight)
        elif norm is None:
            held[0].copy_(refitted.weight)
        if norm is None:
            if bias is not None:
                bias.copy_(refitted.bias)
            return
        how = layout_of(refitted.node, replay.groups_of(refitted.node))
        behind = {k: state[names[v.name]] for k, v in _norm_state(norm).items()}
        _write_normalised(how, held[0], bias, behind, norm, refitted)


def write_direction_and_length(direction: Tensor, length: Tensor, dim: int, weight: Tensor) -> None:
    """A weight under weight normalisation (Salimans & Kingma, NeurIPS 2016)."""
    weight = torch.where(weight == 0, TINY, weight)  # a direction of length 0 has no value
    direction.copy_(weight)
    length.copy_(torch.norm_except_dim(weight, 2, dim))


def _norm_state(norm: fx.Node) -> dict[str, fx.Node]:
    bound = bind(norm)
    return {k: bound[k] for k in ("weight", "bias", "running_mean", "running_var")}


def _write_normalised(
    how: Layout, weight: Tensor, bias: Tensor | None, state: dict[str, Tensor], norm: fx.Node, refitted: Refitted
) -> None:
    """Normalisation with the true statistics of the new output, so that training mode computes the same function.

    Filters keep the norm they had: step sizes and weight decay of a later fine-tuning mean what they meant.
    """
    filters = how.filters(refitted.weight)
    before = how.filters(weight).flatten(1).norm(dim=1)
    after = filters.flatten(1).norm(dim=1)
    scale = torch.where((before > 0) & (after > 0), before / after.clamp_min(1e-30), torch.ones_like(before))
    weight.copy_(how.weight(filters * scale.reshape(-1, *[1] * (weight.dim() - 1))))
    own_bias = torch.zeros_like(scale) if bias is None else bias
    state["running_mean"].copy_(refitted.mean * scale + own_bias)
    state["running_var"].copy_(refitted.variance * scale.square())
    state["weight"].copy_((state["running_var"] + bind(norm)["eps"]).sqrt() / scale)
    state["bias"].copy_(refitted.bias + refitted.mean)
