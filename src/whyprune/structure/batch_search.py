"""Finds where the images of a batch lie in every value of a graph, by trying out one operation after the other.

An operation runs on a few images, and on some of the same images in another order and number, given as the values that
its inputs have at these images. Where its result is the first result at these images, the images lie as assumed;
where no way to lie there fits, it mixes images (a mean over the batch, statistics of the batch). As every operation is
tried by itself, its inputs need not be the network's: they are random numbers, so that nothing hides behind values that
are zero or the same for all images. What the random numbers cannot go through (indices computed from them) is tried
with the network's own values.
"""

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from whyprune.data.batches import Batch
from whyprune.errors import InputError
from whyprune.structure.batch_place import FIRST, BatchPlace
from whyprune.structure.capture import Graph, first_line
from whyprune.structure.operations import ASSERTED, functional, name_of, where
from whyprune.structure.schedule import last_use, sized_only, state_only

IMAGES = 3
CHOSEN = (2, 0, 0, 2)  # one is left out, one comes twice, the order is another
OUTLIERS = 1e-4
PARTS = frozenset(
    ["unbind", "select", "slice", "split", "split_with_sizes", "chunk", "narrow", "index_select", "getitem", "squeeze"]
)


@dataclass(frozen=True)
class Unplaced:
    """Why the images lie nowhere in a value.

    Attributes:
        node: the operation behind it.
        why: in words.
        part: whether the value is that of some images of the batch alone, nothing mixed yet.
        mixed: whether images are mixed.
        sized: whether the value depends on how many images there are, and not on which: it is made anew for others.
    """

    node: fx.Node
    why: str
    part: bool = False
    mixed: bool = False
    sized: bool = False


@dataclass(frozen=True)
class Counts:
    """A number computed from the batch's size; `each` per image, or None where it does not grow in proportion."""

    each: int | None


Found = BatchPlace | Unplaced | Counts | None | tuple[Any, ...]
Pair = tuple[Any, Any]


class BatchPlaces:
    """Where the images lie, node by node; found when first asked for. It does not depend on the weights."""

    def __init__(self, model: nn.Module, graph: Graph, example: Batch) -> None:
        self._model, self._graph, self._example = model, graph, example

    def of(self, node: fx.Node) -> BatchPlace | None:
        """The place of the images in a node's tensor; None where the tensor does not depend on the batch.

        Raises:
            InputError: images are mixed there, or it cannot be told where they lie.
        """
        found = self.found(node)
        if isinstance(found, Unplaced):
            raise InputError(
                f"{found.why}: effects of single images cannot be measured on this network; let that operation keep to "
                "one image at a time, or choose a scorer that looks at weights alone, such as magnitude-l2"
            )
        return found if isinstance(found, BatchPlace) else None

    def mixes(self, node: fx.Node) -> bool:
        """Whether images are mixed in a node's tensor."""
        found = self.found(node)
        return isinstance(found, Unplaced) and found.mixed

    def found(self, node: fx.Node) -> Found:
        """All that is known of a node: a place, nothing (None), numbers that count images, or why there is no place."""
        return self._all.get(node)

    @cached_property
    def _all(self) -> dict[fx.Node, Found]:
        try:
            return _Search(self._model, self._graph, self._example, lively=True).run()
        except Exception:  # noqa: BLE001 - the model's own operations may raise anything on random numbers
            pass
        try:
            return _Search(self._model, self._graph, self._example, lively=False).run()
        except Exception as error:  # noqa: BLE001 - the same: what cannot be tried is known of no value
            reason = (
                f"the network does not run on its example's images in another order and number ({first_line(error)})"
            )
            return {node: Unplaced(node, reason) for node in self._graph.nodes}


class _Search:
    """One walk through the graph; `lively` puts random numbers in the place of all values that depend on images."""

    def __init__(self, model: nn.Module, graph: Graph, example: Batch, *, lively: bool) -> None:
        self._graph, self._lively = graph, lively
        self._generator = torch.Generator().manual_seed(0)
        size = graph.batch_size
        self._count = IMAGES if size is None else size
        self._chosen = torch.tensor(CHOSEN if size is None else [size - 1, size - 1, *range(size - 2)][:size])
        self._noise = torch.rand(0)
        self.values: dict[fx.Node, Pair] = {}
        self.found: dict[fx.Node, Found] = {}
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        by_name = {n.name: n for n in graph.nodes if n.op == "placeholder"}
        for name, node in by_name.items():
            tensor = state.get(graph.state_names.get(name, ""), graph.constants.get(name))
            if tensor is not None:
                self.values[node] = (tensor.detach(), tensor.detach())
        self.fixed = state_only(graph.operations, self.values)
        self.sized = sized_only(graph.operations, self.fixed)
        batch = example[torch.arange(self._count) % len(example)]
        flat = pytree.tree_leaves((batch.args, batch.kwargs))
        for name, value in zip(graph.inputs, flat, strict=True):
            if name in by_name:
                self._enter(by_name[name], value)

    def _enter(self, node: fx.Node, value: Any) -> None:
        holds = isinstance(value, Tensor) and value.dim() > 0
        self.found[node] = FIRST if holds else None
        self.values[node] = self._pair(value, FIRST) if holds else (value, value)

    def run(self) -> dict[fx.Node, Found]:
        """Tries all operations in order."""
        last = last_use(self._graph.operations)
        with torch.inference_mode():
            for node in self._graph.operations:
                if name_of(node) == ASSERTED:
                    continue
                self._try(node)
                for done in last.get(node, ()):
                    self.values.pop(done, None)
        return self.found

    def _try(self, node: fx.Node) -> None:
        one = self._result(node, 0)
        if node in self.fixed:
            self.found[node], self.values[node] = None, (one, one)
            return
        other = self._result(node, 1)
        reasons = [f for a in node.all_input_nodes if isinstance(f := self.found.get(a), Unplaced) and not f.sized]
        mixed = next((r for r in reasons if not r.part), None)
        if node.target is operator.getitem and isinstance(parts := self.found.get(node.args[0]), tuple):  # type: ignore[arg-type]
            self.found[node], self.values[node] = parts[int(node.args[1])], (one, other)  # type: ignore[arg-type]
            return
        part = next((r for r in reasons if r.part), None)
        self.found[node], self.values[node] = self._judged(node, one, other, mixed, part)

    def _judged(
        self, node: fx.Node, one: Any, other: Any, mixed: Unplaced | None, part: Unplaced | None
    ) -> tuple[Found, Pair]:
        """What is found of a value, and the two values that go on."""
        if isinstance(one, tuple | list):
            judged = [self._judged(node, a, b, mixed, part) for a, b in zip(one, other, strict=True)]
            pairs = zip(*(pair for _, pair in judged), strict=True) if judged else ((), ())
            kind = type(one)
            left, right = (kind(values) for values in pairs)
            return tuple(found for found, _ in judged), (left, right)
        if mixed is not None:
            return mixed, (one, other)
        if not isinstance(one, Tensor):
            return self._number(one, other), (one, other)
        fitting = list(self._fitting(one, other))
        if not fitting:
            return part or self._nowhere(node), (one, other)
        if len(fitting) == 1:
            place = fitting[0]
            return place, (one, other) if place is None or node in self.sized else self._pair(one, place)
        if not self._lively:
            why = f"it cannot be told where the images of a batch lie in the result of {name_of(node)} at {where(node)}"
            return Unplaced(node, why), (one, other)
        # the same whatever the images are, as zeros_like: it lies as what it was made from, where that has its shape
        like = [p for a in node.all_input_nodes if isinstance(p := self.found.get(a), BatchPlace) and p in fitting]
        return (like or fitting)[0], (one, other)

    def _number(self, one: Any, other: Any) -> Found:
        if one == other or isinstance(one, bool) or not isinstance(one, int | float):
            return None
        even = one * len(self._chosen) == other * self._count
        return Counts(int(one) // self._count if even else None)

    def _nowhere(self, node: fx.Node) -> Unplaced:
        if node in self.sized:
            why = f"{name_of(node)} at {where(node)} makes values from the number of images in a batch"
            return Unplaced(node, why, sized=True)
        why = (
            f"images of a batch are mixed at {where(node)}: what {name_of(node)} gives for one image depends on the "
            "other images of its batch, or on chance"
        )
        part = name_of(node) in PARTS
        return Unplaced(node, why, part=part, mixed=not part)

    def _result(self, node: fx.Node, which: int) -> Any:
        args: Any = fx.node.map_arg(node.args, lambda n: self.values[n][which])
        kwargs: Any = fx.node.map_arg(node.kwargs, lambda n: self.values[n][which])
        return functional(node.target)(*args, **kwargs)

    def _fitting(self, one: Tensor, other: Tensor) -> Iterator[BatchPlace | None]:
        """All ways in which the images can lie, as far as the two results tell."""
        if one.dim() != other.dim() or one.dtype != other.dtype:
            return
        if one.shape == other.shape and _same(one, other):
            yield None
        for dim in range(one.dim()):
            each, rest = divmod(one.shape[dim], self._count)
            sizes = [*one.shape[:dim], each * len(self._chosen), *one.shape[dim + 1 :]]
            if rest or not each or sizes != list(other.shape):
                continue
            for before in (k for k in range(1, each + 1) if each % k == 0):
                place = BatchPlace(dim, before, each // before)
                if _same(place.take(one, self._chosen, self._count), other):
                    yield place

    def _pair(self, value: Tensor, place: BatchPlace) -> Pair:
        """A value, or random numbers of its kind, and the same at the chosen images."""
        one = self._random(value) if self._lively and value.numel() else value
        return one, place.take(one, self._chosen, self._count)

    def _random(self, value: Tensor) -> Tensor:
        if value.is_floating_point() or value.is_complex():
            if len(self._noise) < value.numel():
                few = torch.rand(65537, generator=self._generator) + 0.1
                self._noise = few.repeat(value.numel() // len(few) + 2)
            start = int(torch.randint(0, len(self._noise) - value.numel() + 1, (), generator=self._generator))
            return self._noise[start : start + value.numel()].reshape(value.shape).to(value)
        if value.dtype == torch.bool:
            return torch.randint(0, 2, value.shape, generator=self._generator).to(value)
        order = torch.randperm(value.numel(), generator=self._generator).to(value.device)
        mixed = value.flatten()[order].reshape(value.shape)
        if int(value.min()) == int(value.max()):
            mixed = mixed * torch.randint(0, 2, value.shape, generator=self._generator).to(value)
        return mixed


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two values agree but for rounding, and for a few that rounding sends over a threshold."""
    if one.numel() == 0:
        return True
    if not one.is_floating_point() and not one.is_complex():
        return bool((one != other).sum() <= OUTLIERS * one.numel())
    off = (one - other).abs()
    size = torch.where(torch.isfinite(one), one, torch.zeros_like(one)).abs().max()
    near = off <= torch.finfo(one.dtype).eps ** 0.75 * size
    alike = near | (one == other) | ((one != one) & (other != other))  # noqa: PLR0124 - both are no number
    return bool((~alike).sum() <= OUTLIERS * one.numel())
