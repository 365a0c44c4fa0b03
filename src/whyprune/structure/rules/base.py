"""The registry of rules, and what a rule reads and writes while labels travel through the graph."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from whyprune.structure.labels import (
    NONE,
    Labellings,
    LabelSpace,
    along,
    compressed,
    distinct,
    support,
    together,
    vector,
)
from whyprune.structure.operations import arguments, at_batch_one, functional, sizes, where

Arguments = Mapping[str, Any]
Value = Labellings | list[Labellings] | None
"""Labellings of one tensor, or a list of them for an operation that gives several tensors."""
Rule = Callable[["Context", fx.Node, Arguments], Value]

RULES: dict[str, Rule] = {}


@dataclass(frozen=True, eq=False)
class Reading:
    """An operation that mixes channels of a tensor: where an intervention do(unit := v) acts.

    Attributes:
        node: the operation.
        data: the tensor it reads.
        labelling: labels of that tensor.
        dims: its dimensions that are mixed. Where the labels turn out not to depend on them, nothing is read.
        affine: True for an operation whose weight has an index per channel: its slices go with the channel.
        statistics: True where removing a channel is not the same as setting it to zero (a mean, a norm, a maximum).
        inside: (groups, channels) where the channels are mixed within groups only, and whole groups are not read.
    """

    node: fx.Node
    data: fx.Node
    labelling: Tensor
    dims: frozenset[int]
    affine: bool
    statistics: bool
    inside: Tensor | None = None


@dataclass(frozen=True, eq=False)
class ChannelCount:
    """A number among an operation's arguments that counts the channels along `dim` of `labelling`."""

    node: fx.Node
    argument: int
    place: int
    labelling: Tensor
    dim: int
    value: int


@dataclass(frozen=True, eq=False)
class Rectangle:
    """A tensor that must keep its shape rectangular: a labelling over several dimensions goes along one of `dims`."""

    labelling: Tensor
    dims: frozenset[int]
    where: str
    reason: str


@dataclass(frozen=True, eq=False)
class Meeting:
    """Channels spread over several dimensions that meet a vector over fewer of them.

    Where they end up going along the vector's dimensions, both go together; else the vector stays whole.
    """

    spread: Tensor
    narrow: Tensor
    where: str


@dataclass
class Context:
    """What rules read and write while labels travel through the graph."""

    space: LabelSpace
    known: Callable[[fx.Node], Tensor | None]
    heads: str = "whole"
    state: frozenset[fx.Node] = frozenset()
    values: dict[fx.Node, Value] = field(default_factory=dict)
    readings: list[Reading] = field(default_factory=list)
    writers: list[tuple[fx.Node, Tensor]] = field(default_factory=list)
    marked: list[tuple[fx.Node, Tensor]] = field(default_factory=list)
    loops: list[tuple[fx.Node, fx.Node, Tensor]] = field(default_factory=list)
    counts: list[ChannelCount] = field(default_factory=list)
    rectangles: list[Rectangle] = field(default_factory=list)
    meetings: list[Meeting] = field(default_factory=list)

    def labellings(self, value: Any) -> Labellings:
        """The labellings of an argument; none for what is no tensor."""
        found = self.values.get(value) if isinstance(value, fx.Node) else None
        return found if isinstance(found, tuple) else ()

    def is_state(self, node: fx.Node) -> bool:
        """Whether a value is a parameter or buffer, or computed from such alone."""
        if node.op == "placeholder":
            return node in self.state
        return bool(node.all_input_nodes) and all(map(self.is_state, node.all_input_nodes))

    def over(self, value: Any, dims: Collection[int]) -> Labellings:
        """The labellings of an argument that depend on any of `dims`."""
        return tuple(labelling for labelling in self.labellings(value) if not support(labelling).isdisjoint(dims))

    def besides(self, value: Any, dims: Collection[int]) -> Labellings:
        """The labellings of an argument that depend on none of `dims`."""
        return tuple(labelling for labelling in self.labellings(value) if support(labelling).isdisjoint(dims))

    def channels(self, value: fx.Node, dim: int, node: fx.Node) -> Tensor | None:
        """The labels along one dimension that `node` treats as the channels: one vector, or None."""
        rank = len(sizes(value))
        dim %= rank
        found = self.single(self.over(value, {dim}), node)
        if found is None:
            return None
        return vector(self.space.tie(found, support(found) - {dim}, where(node)), dim)

    def single(self, found: Labellings, node: fx.Node) -> Tensor | None:
        """The one of several labellings over a dimension that may lose channels: the widest; the others are kept whole.

        Labellings of uniform values give way to any other.
        """
        if not found:
            return None
        best = max(found, key=lambda labelling: (not self.space.is_uniform(labelling), len(distinct(labelling))))
        for labelling in found:
            if labelling is not best:
                self.space.pin(labelling, where(node), "two kinds of channels are folded into one dimension")
        return best

    def pin(self, value: Any, node: fx.Node, reason: str, dims: Collection[int] | None = None) -> None:
        """Keeps channels of a tensor whole because of what `node` does with them."""
        for labelling in self.labellings(value):
            if dims is None or not support(labelling).isdisjoint(dims):
                self.space.pin(labelling, where(node), reason)

    def rigid(self, value: Any, dims: Iterable[int], node: fx.Node, reason: str) -> None:
        """Dimensions of a tensor that must keep their size."""
        rank = len(sizes(value))
        fixed = frozenset(d % rank for d in dims)
        for labelling in self.labellings(value):
            self.rigid_labelling(labelling, fixed, node, reason)

    def rigid_labelling(self, labelling: Tensor, fixed: frozenset[int], node: fx.Node, reason: str) -> None:
        """Dimensions of one labelling that must keep their size: its channels go along others, or stay."""
        if support(labelling) & fixed:
            self.rectangles.append(Rectangle(labelling, support(labelling) - fixed, where(node), reason))

    def meet(self, left: Tensor, right: Tensor, node: fx.Node) -> None:
        """Two labellings of one tensor's rank whose elements meet one by one."""
        if left is right:
            return
        wide, narrow = (left, right) if support(left) > support(right) else (right, left)
        if support(wide) > support(narrow) and len(support(wide)) > 1:
            self.meetings.append(Meeting(wide, narrow, where(node)))
            return
        self.space.unite(left, right)
        a, b = together(left, right)
        stranger = "they meet values that are no known channels"
        self.space.pin(a[(b == NONE) & (a >= 0)], where(node), stranger)
        self.space.pin(b[(a == NONE) & (b >= 0)], where(node), stranger)

    def reads(
        self,
        node: fx.Node,
        data: fx.Node,
        labelling: Tensor,
        dims: Iterable[int],
        *,
        affine: bool,
        statistics: bool = False,
        inside: Tensor | None = None,
    ) -> None:
        """Notes that `node` mixes the channels of `labelling` along `dims`."""
        self.readings.append(Reading(node, data, labelling, frozenset(dims), affine, statistics, inside))

    def counted(self, node: fx.Node, argument: int, place: int, labelling: Tensor, dim: int, value: Any) -> None:
        """Notes that a number in an argument counts the channels along a dimension of a labelling.

        The number may be a multiple of the batch size: what counts is its value for one sample.
        """
        if labelling.shape[dim] > 1 and isinstance(value, int | fx.Node):
            number = value if isinstance(value, int) else at_batch_one(value.meta["val"])
            self.counts.append(ChannelCount(node, argument, place, labelling, dim, number))

    def concrete(self, value: Any) -> Any:
        """An argument as the operation gets it for one sample: numbers, and tensors as far as they are known."""
        if not isinstance(value, fx.Node):
            return value
        meta = value.meta.get("val")
        if not isinstance(meta, Tensor):
            return at_batch_one(meta) if meta is not None else None
        known = self.known(value)
        return torch.zeros(sizes(value), dtype=torch.int64) if known is None else known

    def moved(self, node: fx.Node, source: fx.Node, labelling: Tensor) -> Any:
        """A labelling of `source`, moved as `node` moves the values: by running the operation on the labels."""

        def argument(value: fx.Node) -> Any:
            return labelling.expand(sizes(source)) if value is source else self.concrete(value)

        args, kwargs = arguments(node, argument)
        return functional(node.target)(*args, **kwargs)


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers a rule for the ATen operations `names`."""

    def register(function: Rule) -> Rule:
        for name in names:
            if name in RULES:
                raise ValueError(f"two rules for aten.{name}")
            RULES[name] = function
        return function

    return register


def known_operations() -> list[str]:
    """The names of all operations with a rule."""
    return sorted(RULES)


def vector_labellings(labels: Tensor | None, dim: int, rank: int) -> Labellings:
    """Channels along one dimension as the labellings of a tensor."""
    return () if labels is None or len(labels) == 1 else (along(labels, dim, rank),)


def compact(labellings: Iterable[Tensor]) -> Labellings:
    """Labellings without needless size, and without those that say nothing."""
    small = (compressed(labelling) for labelling in labellings)
    return tuple(labelling for labelling in small if support(labelling))
