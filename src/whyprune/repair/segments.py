"""Stretches of a network from one residual sum to the next, as functions of the weights of their layers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from whyprune.repair.targets import RefitTarget
from whyprune.structure.replay import Replay, Values

MOST_LAYERS = 4
"""In one segment, where no sum ends it sooner; a bottleneck with its projection has four."""


@dataclass(frozen=True)
class Segment:
    """Layers that are refitted together, so that what the last of them leads to comes closest to the dense value.

    Attributes:
        layers: the layers, in the order in which they run; where the last one aims all of them aim.
        steps: the operations from behind the segment before to the aim, in the order in which they run.
    """

    layers: tuple[RefitTarget, ...]
    steps: tuple[fx.Node, ...]

    @property
    def aim(self) -> fx.Node:
        """The value that is compared with the dense network's."""
        return self.layers[-1].aim

    def needs(self, replay: Replay) -> set[fx.Node]:
        """What the steps read that none of them makes."""
        return {read for step in self.steps for read in replay.reads(step)} - set(self.steps)

    def values(self, replay: Replay, before: Values) -> Values:
        """Everything the steps make, and what they read."""
        found = dict(before)
        for step in self.steps:
            found[step] = replay.step(step, found)
        return found


def segments(jobs: Sequence[RefitTarget], order: Sequence[fx.Node]) -> list[Segment]:
    """The layers in segments: each ends where its last layer joins a sum, or with its fourth layer."""
    found: list[Segment] = []
    open_: list[RefitTarget] = []
    start = 0
    for number, job in enumerate(jobs):
        open_.append(job)
        if job.other is not None or len(open_) == MOST_LAYERS or number == len(jobs) - 1:
            stop = order.index(job.aim) + 1
            found.append(Segment(tuple(open_), tuple(order[start:stop])))
            start, open_ = stop, []
    return found


class Weights:
    """The weights and biases of a segment's layers as one tuple, and the segment as a function of it."""

    def __init__(self, replay: Replay, segment: Segment) -> None:
        self._replay, self._segment = replay, segment

    def now(self) -> tuple[Tensor, ...]:
        """What the layers run with, normalisation folded in: of each the filters, and the bias if it can have one."""
        found: list[Tensor] = []
        for layer in self._segment.layers:
            weight, bias = self._replay.parameters_of(layer.node)
            filters = layer.layout.filters(weight)
            found += [filters, _bias_of(filters, bias)] if layer.intercept else [filters]
        return tuple(tensor.clone() for tensor in found)

    def set(self, parameters: Sequence[Tensor]) -> None:
        """From now on the layers run with these."""
        left = iter(parameters)
        for layer in self._segment.layers:
            filters = next(left)
            bias = next(left) if layer.intercept else _bias_of(filters, None)
            self._replay.set_parameters(layer.node, layer.layout.weight(filters), bias)

    def function(self, before: Values) -> Callable[..., Tensor]:
        """Parameters -> the aim, for what the segment reads; the layers keep what they had."""

        def aim(*parameters: Tensor) -> Tensor:
            kept = self.now()
            self.set(parameters)
            try:
                value: Tensor = self._segment.values(self._replay, before)[self._segment.aim]
            finally:
                self.set(kept)
            return value

        return aim


def _bias_of(filters: Tensor, bias: Tensor | None) -> Tensor:
    return torch.zeros(len(filters), dtype=filters.dtype) if bias is None else bias
