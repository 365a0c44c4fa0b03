"""Further networks: things that people do to channels between two layers."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from acceptance_convolutions import Pooled, conv
from acceptance_oracle import Read
from acceptance_property import Case, image
from networks import CLASSES
from torch import Tensor, nn


class Between(Pooled):
    """Six channels, an operation on them, and a convolution that reads what it gives."""

    def __init__(self, operation: Callable[[Tensor], Tensor], channels: int = 6) -> None:
        super().__init__(5)
        self.operation = operation
        self.one, self.norm, self.two = conv(3, 6), nn.BatchNorm2d(6), conv(channels, 5)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.two(self.operation(self.norm(self.one(x)))))


class Scaled(nn.Module):
    """Each channel times a number: a buffer, or a tensor that is neither parameter nor buffer."""

    def __init__(self, registered: bool) -> None:
        super().__init__()
        scale = torch.linspace(0.5, 1.5, 6)
        if registered:
            self.register_buffer("scale", scale)
        else:
            self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.view(1, -1, 1, 1)


class Reordered(nn.Module):
    """Channels in the order of a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor([3, 0, 5, 1, 4, 2]))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.order]


class CondConv(Pooled):
    """Each image mixes its own kernel from three."""

    def __init__(self, per_image: bool) -> None:
        super().__init__(5)
        self.per_image = per_image
        self.one, self.route, self.norm, self.two = conv(3, 6), nn.Linear(6, 3), nn.BatchNorm2d(7), conv(7, 5)
        self.bank = nn.Parameter(torch.empty(3, 7, 6, 3, 3))

    def features(self, x: Tensor) -> Tensor:
        x = F.relu(self.one(x))
        share = torch.softmax(self.route(x.mean((2, 3))), dim=1)
        count, channels, height, width = x.shape
        if self.per_image:
            kernels = torch.einsum("bk,koihw->boihw", share, self.bank).reshape(-1, channels, 3, 3)
            x = F.conv2d(x.reshape(1, -1, height, width), kernels, padding=1, groups=count)
            x = x.reshape(count, -1, height, width)
        else:
            x = F.conv2d(x, (self.bank * 0.5).sum(0), padding=1)
        return F.relu(self.two(self.norm(x)))


class Bilinear(nn.Module):
    """All products of two channels, averaged over places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.hidden, self.head = conv(3, 4), nn.Linear(16, 7), nn.Linear(7, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2)
        x = torch.bmm(x, x.transpose(1, 2)).div(x.shape[-1]).flatten(1)
        return self.head(F.relu(self.hidden(x)))


class Split(Pooled):
    """Unequal parts of the channels take different ways; the sizes are attributes or constants."""

    def __init__(self, constant: bool) -> None:
        super().__init__(5)
        self.left, self.right, self.constant = 2, 4, constant
        self.one, self.small, self.large = conv(3, 6), conv(2, 5), conv(4, 5)

    def features(self, x: Tensor) -> Tensor:
        x = F.relu(self.one(x))
        left, right = x.split([2, 4], 1) if self.constant else torch.split(x, [self.left, self.right], dim=1)
        return F.relu(self.small(left)) + self.large(right)


class Patches(nn.Module):
    """Places of 2x2 are folded into the channels, in front of them or behind."""

    def __init__(self, behind: bool) -> None:
        super().__init__()
        self.behind = behind
        self.stem, self.mix, self.head = conv(3, 6), nn.Linear(24, 7), nn.Linear(7, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        count, channels, height, width = x.shape
        x = x.reshape(count, channels, height // 2, 2, width // 2, 2)
        x = x.permute(0, 2, 4, 1, 3, 5) if self.behind else x.permute(0, 2, 4, 3, 5, 1)
        return self.head(F.relu(self.mix(x.flatten(3))).mean(dim=(1, 2)))


def maxout(x: Tensor) -> Tensor:
    count, channels, height, width = x.shape
    return x.view(count, channels // 2, 2, height, width).max(dim=2).values


def sliced(x: Tensor) -> Tensor:
    return torch.cat([x[:, 2:], x[:, :2]], dim=1)


def written_to_clone(x: Tensor) -> Tensor:
    y = x.clone()
    y.mul_(0.5).add_(x)
    F.relu_(y)
    y += x.sigmoid()
    return y


def squeezed(x: Tensor) -> Tensor:
    scale = F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1)
    return x * torch.tanh(scale).unsqueeze(-1).unsqueeze(2)


def coordinates(x: Tensor) -> Tensor:
    """CoordConv: two more channels that say where a place is."""
    count, _, height, width = x.shape
    rows = torch.linspace(-1, 1, height).view(1, 1, height, 1).expand(count, 1, height, width)
    columns = torch.linspace(-1, 1, width).view(1, 1, 1, width).expand(count, 1, height, width)
    return torch.cat([x, rows, columns], dim=1)


def between(operation: Any, one: int = 6, channels: int = 6, build: bool = False, **options: Any) -> Case:
    """A case for an operation, or for a module that `operation` builds; `one`: units of the channels before it."""
    must = {"two": 5, **({"one": one} if one else {})}
    return Case(lambda: Between(operation() if build else operation, channels), image, must, **options)


EITHER = {"either": ("one",)}
THROUGH = (Read("norm", "two"), Read("two", "head"))

WIDE_CHANNELS: dict[str, Case] = {
    "bilinear pooling": Case(Bilinear, image, {"hidden": 7}, either=("stem",)),
    "recomputed kernel": Case(lambda: CondConv(False), image, {"two": 5, "one": 6}),
    "kernel per image": Case(lambda: CondConv(True), image, {"two": 5}, either=("one", "bank")),
    "buffer scale": between(lambda: Scaled(True), build=True, reads=THROUGH),
    "constant scale": between(lambda: Scaled(False), 0, build=True, **EITHER),
    "buffer order": between(Reordered, 0, build=True, **EITHER),
    "constant list": between(lambda x: x[:, [0, 2, 4, 5]], 0, 4, **EITHER),
    "one channel by index": between(lambda x: x * x[:, 2:3].sigmoid(), 0, **EITHER),
    "maxout": between(
        maxout, 3, 3, together={"one": 2}, reads=(Read("norm", "two", lambda i: (i // 2,)), Read("two", "head"))
    ),
    "halves swapped by constants": between(sliced, 0, **EITHER),
    "roll of places": between(lambda x: torch.roll(x, (1, -2), (2, 3)), reads=THROUGH),
    "roll of channels": between(lambda x: torch.roll(x, 2, 1), 0, **EITHER),
    "flip of channels": between(
        lambda x: x.flip(1), 0, reads=(Read("norm", "two", lambda i: (5 - i,)), Read("two", "head")), **EITHER
    ),
    "split by attributes": Case(
        lambda: Split(False),
        image,
        {"one": 6, "small": 5},
        reads=(
            Read("one", "small", lambda i: (i,) if i < 2 else ()),
            Read("one", "large", lambda i: (i - 2,) if i >= 2 else ()),
            Read("small", "head"),
        ),
    ),
    "split by constants": Case(lambda: Split(True), image, {"small": 5}, either=("one",)),
    "patches behind channels": Case(
        lambda: Patches(True),
        image,
        {"stem": 6, "mix": 7},
        reads=(Read("stem", "mix", lambda i: range(4 * i, 4 * i + 4), -1), Read("mix", "head", dim=-1)),
    ),
    "patches before channels": Case(
        lambda: Patches(False),
        image,
        {"stem": 6, "mix": 7},
        reads=(Read("stem", "mix", lambda i: range(i, 24, 6), -1), Read("mix", "head", dim=-1)),
    ),
    "written to a clone": between(written_to_clone, reads=THROUGH),
    "squeeze and unsqueeze": between(squeezed, reads=THROUGH),
    "interpolate": between(lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear"), reads=THROUGH),
    "coordinates": between(coordinates, 6, 8, reads=THROUGH),
}
