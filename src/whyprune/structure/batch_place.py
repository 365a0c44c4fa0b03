"""`BatchPlace`: where the images of a batch lie in a tensor, and what is done to them there.

A model may hold them in any dimension (sequence first: (T, B, C)), or merged with others: windows (B * W, ...), heads
(T, B * heads, ...), frames of a video with the frame outermost (T * B, ...).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whyprune.errors import InputError


@dataclass(frozen=True)
class BatchPlace:
    """Dimension `dim` has the size `before` x images x `after`, the images in the middle.

    In a pruned network `before` or `after` may be smaller, where it counts channels (heads): the number of images says
    what is left of it.

    Attributes:
        dim: the dimension.
        before: parts that lie outside the images.
        after: parts of every image that lie one by one.
    """

    dim: int = 0
    before: int = 1
    after: int = 1

    @property
    def alone(self) -> bool:
        """Whether the dimension holds the images and nothing else."""
        return self.before == self.after == 1

    def take(self, value: Tensor, images: Tensor, count: int) -> Tensor:
        """The value for the images of these numbers, of the `count` that it holds."""
        index = images.to(value.device)
        if self.alone and len(value.shape) > self.dim and value.shape[self.dim] == count:
            return value[index] if self.dim == 0 else value.index_select(self.dim, index)
        parts = self._apart(value, count)
        return parts.index_select(self.dim + 1, index).flatten(self.dim, self.dim + 2)

    def front(self, value: Tensor, count: int) -> Tensor:
        """The value with the `count` images first: (B, ...); what was merged with them stays where they were."""
        if self.alone:
            return value if self.dim == 0 else value.movedim(self.dim, 0)
        return self._apart(value, count).movedim(self.dim + 1, 0).flatten(self.dim + 1, self.dim + 2)

    def in_front(self, dim: int) -> int:
        """Where another dimension of a value lies in `front`."""
        return dim + 1 if dim < self.dim or not self.alone else dim

    def split(self, value: Tensor, pieces: int) -> Sequence[Tensor]:
        """The value for each of `pieces` equal runs of images, in the order of the images."""
        if self.before == 1:
            return value.chunk(pieces, self.dim)
        found = _unflatten(value, self.dim, (self.before, pieces, -1)).unbind(self.dim + 1)
        return [piece.flatten(self.dim, self.dim + 1) for piece in found]

    def join(self, pieces: Sequence[Tensor]) -> Tensor:
        """The opposite of `split`."""
        if self.before == 1:
            return torch.cat(list(pieces), self.dim)
        apart = [_unflatten(piece, self.dim, (self.before, -1)) for piece in pieces]
        return torch.stack(apart, self.dim + 1).flatten(self.dim, self.dim + 2)

    def spread(self, rows: Tensor, value: Tensor, along: int | None = None) -> Tensor:
        """Numbers per image, (B,), or per image and index of dimension `along`, (B, K), shaped to go on `value`."""
        before, after = self._factors(value, len(rows))
        full = rows.repeat_interleave(after, dim=0).repeat(before, *[1] * (rows.dim() - 1))
        shape = [1] * value.dim()
        shape[self.dim] = len(full)
        if along is not None:
            shape[along] = full.shape[1]
            full = full if self.dim < along else full.T
        return full.reshape(shape)

    def _apart(self, value: Tensor, count: int) -> Tensor:
        """The value with `dim` as three: before, images, after."""
        before, after = self._factors(value, count)
        return _unflatten(value, self.dim, (before, count, after))

    def _factors(self, value: Tensor, count: int) -> tuple[int, int]:
        size = value.shape[self.dim]
        if size == self.before * count * self.after:
            return self.before, self.after
        if count and size % count == 0 and not self.alone and 1 in (self.before, self.after):
            return (size // count, 1) if self.after == 1 else (1, size // count)
        raise InputError(
            f"a value of shape {tuple(value.shape)} does not hold {count} images as it did in the trace (dimension "
            f"{self.dim}, {self.before} x images x {self.after}): give data of the example's kind"
        )


def _unflatten(value: Tensor, dim: int, sizes: tuple[int, ...]) -> Tensor:
    return value.reshape(*value.shape[:dim], *sizes, *value.shape[dim + 1 :])


FIRST = BatchPlace()
