"""Modules of which random networks' blocks are made: each knows its widths in one of the ways people write them."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Op(nn.Module):
    """A function of values and modules, which takes its numbers from shapes."""

    def __init__(self, name: str, function: Callable[..., Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.name, self.function, self.parts = name, function, nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)

    def extra_repr(self) -> str:
        return self.name


class Numbered(nn.Module):
    """Knows a width from the tensor's shape, from an attribute, or as a constant that no attribute holds."""

    def __init__(self, how: str, width: int) -> None:
        super().__init__()
        self.how, self.constants = how, {"width": width}
        if how == "attribute":
            self.width = width

    def extra_repr(self) -> str:
        return f"{self.how}, {self.constants}"

    def count(self, x: Tensor, dim: int = 1) -> int:
        if self.how == "shape":
            return x.shape[dim]
        return self.width if self.how == "attribute" else self.constants["width"]


class Shuffle(Numbered):
    """ShuffleNet's, in two groups."""

    def forward(self, x: Tensor) -> Tensor:
        count, _, height, width = x.shape
        x = x.view(count, 2, self.count(x) // 2, height, width)
        return x.transpose(1, 2).reshape(count, -1, height, width)


class Excite(Numbered):
    """Squeeze and excite by linear layers; the scale gets its places back by a view."""

    def __init__(self, how: str, width: int, inner: int) -> None:
        super().__init__(how, width)
        self.squeeze, self.excite = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.excite(F.relu(self.squeeze(x.mean((2, 3))))).sigmoid()
        return x * scale.view(x.shape[0], self.count(x), 1, 1)


class Parts(Numbered):
    """Two unequal parts of the channels take different ways and meet in a sum, or are joined the other way round."""

    def __init__(self, how: str, left: int, right: int, outputs: int, joined: bool) -> None:
        super().__init__(how, left)
        self.joined = joined
        self.constants["rest"] = right
        if how == "attribute":
            self.rest = right
        self.left, self.right = nn.Conv2d(left, outputs, 1), nn.Conv2d(right, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "shape":
            left, right = x[:, : self.constants["width"]], x[:, self.constants["width"] :]
        else:
            left, right = x.split([self.count(x), self.rest if self.how == "attribute" else self.constants["rest"]], 1)
        one, other = self.left(left), F.relu(self.right(right))
        return torch.cat([other, one], 1) if self.joined else one + other


class Scale(nn.Module):
    """A bare parameter for each channel, in one of three shapes: times, or added."""

    def __init__(self, channels: int, shape: str, added: bool) -> None:
        super().__init__()
        sizes = {"flat": (channels,), "places": (channels, 1, 1), "batch": (1, channels, 1, 1)}
        self.scale, self.added = nn.Parameter(torch.empty(sizes[shape])), added

    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale.view(1, -1, 1, 1) if self.scale.dim() == 1 else self.scale
        return x + scale if self.added else x * scale


class Bare(nn.Module):
    """A 1x1 convolution whose weight is a bare parameter, as a function or as an einsum."""

    def __init__(self, inputs: int, outputs: int, how: str) -> None:
        super().__init__()
        self.how, self.weight = how, nn.Parameter(torch.empty(outputs, inputs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "einsum":
            return torch.einsum("bihw,oi->bohw", x, self.weight[:, :, 0, 0])
        return F.conv2d(x, self.weight)


class Last(nn.Module):
    """Runs a module with the channels last."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
