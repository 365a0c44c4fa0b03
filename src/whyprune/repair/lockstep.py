"""Runs one network operation by operation over all calibration batches; two of them run in lock-step."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, fx

from whyprune.data.batches import Batch
from whyprune.repair.rows import layout
from whyprune.structure.replay import Replay, Values


class StreamedActivations:
    """One network's values for every batch; a value is dropped when nothing still needs it."""

    def __init__(
        self,
        replay: Replay,
        batches: Sequence[Batch],
        order: Sequence[fx.Node],
        pinned: Iterable[fx.Node] = (),
    ) -> None:
        """Starts from the network's inputs; `order` is an execution order, `pinned` stay until `release`."""
        self.replay = replay
        self.values: list[Values] = [replay.inputs(batch) for batch in batches]
        self._order = list(order)
        self._waiting: dict[fx.Node, set[fx.Node]] = {}
        for step in self._order:
            for argument in replay.reads(step):
                self._waiting.setdefault(argument, set()).add(step)
        self._pinned = set(pinned)
        self._next = 0

    def advance(self, until: fx.Node) -> None:
        """Computes, in order, everything up to and including `until`; inputs are always there."""
        if until in self._order:
            self._advance(self._order.index(until) + 1)

    def advance_before(self, step: fx.Node) -> None:
        """Computes, in order, everything that comes before `step`."""
        self._advance(self._order.index(step))

    def _advance(self, stop: int) -> None:
        for node in self._order[self._next : stop]:
            self._compute(node)
        self._next = max(self._next, stop)

    def of(self, node: fx.Node) -> list[Tensor]:
        """A node's value, per batch."""
        return [values[node] for values in self.values]

    def release(self, node: fx.Node) -> None:
        """A pinned value has been used."""
        self._pinned.discard(node)
        self._drop(node)

    def _compute(self, node: fx.Node) -> None:
        with torch.inference_mode():
            for values in self.values:
                values[node] = self.replay.step(node, values)
        for argument in self.replay.reads(node):
            if argument in self._waiting:
                self._waiting[argument].discard(node)
                self._drop(argument)

    def _drop(self, node: fx.Node) -> None:
        if not self._waiting.get(node) and node not in self._pinned:
            for values in self.values:
                values.pop(node, None)


def schedule(replay: Replay) -> list[fx.Node]:
    """An execution order in which operations that are not refitted come as early as they can."""
    inside = set(replay.order)
    refitted = {n for n in replay.order if layout(n) is not None}
    done: set[fx.Node] = set()
    left = list(replay.order)
    out: list[fx.Node] = []
    while left:
        ready = [n for n in left if all(a in done or a not in inside for a in replay.reads(n))]
        chosen = next((n for n in ready if n not in refitted), ready[0])
        left.remove(chosen)
        done.add(chosen)
        out.append(chosen)
    return out
