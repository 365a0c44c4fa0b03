"""The rows of a layer's least-squares problem: what it sees and what it should give, at sampled output places."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from whyprune.repair.obstacles import obstacle
from whyprune.structure.operations import CONVOLUTIONS, TRANSPOSED, bind, name_of, shape_of

ROWS_PER_FEATURE = 170
MAX_BYTES = 384 * 2**20


@dataclass(frozen=True)
class Layout:
    """How one affine operation turns its input into rows.

    Filters are weights as (O, I / groups, *kernel), whatever shape the operation wants them in. Groups are those of the
    network that is refitted.

    Attributes:
        kernel, stride, padding, dilation: of a convolution, a number for each dimension that it slides along; kernel is
            None for a linear layer.
        beyond: what is padded behind the input more than in front of it; of a transposed convolution the output
            padding; empty for none.
        groups: every group of outputs sees its own group of channels.
        transposed: whether the convolution is a transposed one, whose weight is (I, O / groups, *kernel).
    """

    kernel: tuple[int, ...] | None = None
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    beyond: tuple[int, ...] = ()
    groups: int = 1
    transposed: bool = False

    def features(self, data: Tensor, places: Tensor) -> Tensor:
        """Rows (images x places, I x kernel); of all groups, one after the other, in the order of flattened filters."""
        if self.kernel is None:
            return _at(data, places)
        reads, inside = self._taps(data, places)
        # outside the image there are zeros: taken from anywhere and multiplied away, which saves padding all of it
        taken = data.flatten(2)[:, :, reads] * inside
        return taken.permute(0, 2, 1, 3).reshape(-1, data.shape[1] * reads.shape[1])

    def values(self, output: Tensor, places: Tensor) -> Tensor:
        """The output at the same places: rows (images x places, O)."""
        if self.kernel is None:
            return _at(output, places)
        return output.flatten(2)[:, :, places].permute(0, 2, 1).reshape(-1, output.shape[1])

    def sizes(self, data: Tensor) -> tuple[int, ...]:
        """The sizes of the output along which its places lie."""
        if self.kernel is None:
            return tuple(data.shape[1:-1])
        found = []
        for d, size in enumerate(data.shape[2:]):
            reach = self.dilation[d] * (self.kernel[d] - 1) + 1
            beyond = self.beyond[d] if self.beyond else 0
            if self.transposed:
                found.append((size - 1) * self.stride[d] - 2 * self.padding[d] + reach + beyond)
            else:
                found.append((size + 2 * self.padding[d] + beyond - reach) // self.stride[d] + 1)
        return tuple(found)

    def split(self, rows: Tensor) -> Tensor:
        """Rows (n, all) as (groups, n, all / groups); as they are where there is one group."""
        return rows if self.groups == 1 else rows.reshape(len(rows), self.groups, -1).transpose(0, 1)

    def filters(self, weight: Tensor) -> Tensor:
        """A weight as (O, I / groups, *kernel)."""
        return self._turned(weight) if self.transposed else weight

    def weight(self, filters: Tensor) -> Tensor:
        """Filters in the shape that the operation takes."""
        return self._turned(filters) if self.transposed else filters

    def matrix(self, weight: Tensor) -> Tensor:
        """A weight as what rows are multiplied by: (O, D), or (groups, O / groups, D) where there are more than one."""
        flat = self.filters(weight).flatten(1)
        return flat if self.groups == 1 else flat.reshape(self.groups, -1, flat.shape[1])

    def _turned(self, tensor: Tensor) -> Tensor:
        """(groups x A, B, *kernel) as (groups x B, A, *kernel)."""
        return tensor.reshape(self.groups, -1, *tensor.shape[1:]).transpose(1, 2).flatten(0, 1).contiguous()

    def _taps(self, data: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """(which place of the input every tap of the kernel reads, whether it lies inside), each (places, taps)."""
        assert self.kernel is not None
        reads, inside = places.new_zeros(len(places), 1), torch.ones(len(places), 1, dtype=torch.bool)
        for d, place in enumerate(torch.unravel_index(places, self.sizes(data))):
            steps = torch.arange(self.kernel[d]) * self.dilation[d]
            if self.transposed:
                ahead = place[:, None] + self.padding[d] - steps
                at, hit = ahead.div(self.stride[d], rounding_mode="floor"), ahead % self.stride[d] == 0
            else:
                at = (place * self.stride[d] - self.padding[d])[:, None] + steps
                hit = torch.ones_like(at, dtype=torch.bool)
            size = data.shape[2 + d]
            hit = hit & (at >= 0) & (at < size)
            reads = (reads[:, :, None] * size + at.clamp(0, size - 1)[:, None, :]).flatten(1)
            inside = (inside[:, :, None] & hit[:, None, :]).flatten(1)
        return reads, inside


def layout(node: fx.Node, groups: int | None = None) -> Layout | None:
    """The layout of an operation that can be refitted; None for any other, and `obstacle` says why.

    Args:
        node: the operation.
        groups: how many groups it has in the network that is refitted (default: as many as in the original).
    """
    return None if obstacle(node) else layout_of(node, groups)


def layout_of(node: fx.Node, groups: int | None = None) -> Layout:
    """The layout of a convolution or linear layer, whether it can be refitted or not."""
    name, bound = name_of(node), bind(node)
    if name not in (*CONVOLUTIONS, *TRANSPOSED):
        return Layout()
    kernel = tuple(int(size) for size in shape_of(bound["weight"])[2:])
    stride, dilation = (_each(bound[key], len(kernel)) for key in ("stride", "dilation"))
    padding, beyond = _padding(bound["padding"], kernel, dilation)
    if name in TRANSPOSED:
        beyond = _each(bound["output_padding"], len(kernel))
    return Layout(kernel, stride, padding, dilation, beyond, groups or int(bound["groups"]), name in TRANSPOSED)


def _padding(
    given: object, kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(padding in front, how much more there is behind): where `same` pads an odd number, one more lies behind."""
    if given == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple(t // 2 for t in total), tuple(t % 2 for t in total)
    return (0,) * len(kernel) if given == "valid" else _each(given, len(kernel)), (0,) * len(kernel)


def _each(value: object, count: int) -> tuple[int, ...]:
    """One number for each dimension; one number alone holds for all."""
    numbers = tuple(int(v) for v in value) if isinstance(value, list | tuple) else (int(value),)  # type: ignore[call-overload]
    return numbers * count if len(numbers) == 1 else numbers


def _at(value: Tensor, places: Tensor) -> Tensor:
    """(B, ..., C) at places of what lies between: (B x places, C)."""
    if len(places) == math.prod(value.shape[1:-1]):
        return value.reshape(-1, value.shape[-1])
    return value.flatten(1, -2)[:, places].flatten(0, 1)


def sample_places(
    total: int, features: int, images: int, generator: torch.Generator, *, groups: int = 1, every: bool = False
) -> Tensor:
    """Output places to look at in every image of one batch: enough rows for the features, within memory.

    Args:
        total: how many there are.
        features: of one group.
        images: of all batches.
        generator: of the places.
        groups: how many groups there are.
        every: whether all places are taken, as far as memory goes: those of a linear layer are its inputs.
    """
    wanted = total if every else -(-ROWS_PER_FEATURE * features // images)
    affordable = max(1, MAX_BYTES // (4 * features * groups * images))
    count = max(1, min(total, wanted, affordable))
    if every and count == total:
        return torch.arange(total)
    return torch.randperm(total, generator=generator)[:count].sort().values
