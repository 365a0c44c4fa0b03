"""Acceptance: small convolutional networks, each with one thing that other pruners crash on or get wrong."""

import torch
import torch.nn.functional as F
from networks import CLASSES
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


class Pooled(nn.Module):
    """`features` differs from network to network; its channels are averaged over places for a linear layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.head = nn.Linear(channels, CLASSES)

    def features(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean(dim=(2, 3)))


class Residual(Pooled):
    def __init__(self) -> None:
        super().__init__(6)
        self.stem, self.norm = conv(3, 6), nn.BatchNorm2d(6)
        self.first, self.second = conv(6, 5), conv(5, 6)

    def features(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        return F.relu(x + self.second(F.relu(self.first(x))))


class Concat(Pooled):
    def __init__(self) -> None:
        super().__init__(5)
        self.left, self.right, self.norm = conv(3, 4), conv(3, 6), nn.BatchNorm2d(10)
        self.last = conv(10, 5)

    def features(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), self.right(x)], dim=1)
        return F.relu(self.last(F.relu(self.norm(x))))


class Gated(Pooled):
    """Half of the channels gate the other half."""

    def __init__(self, function: bool) -> None:
        super().__init__(5)
        self.function = function
        self.gate, self.last = conv(3, 12), conv(6, 5)

    def features(self, x: Tensor) -> Tensor:
        x = self.gate(x)
        if self.function:
            return self.last(F.glu(x, dim=1))
        value, gate = x.chunk(2, dim=1)
        return self.last(value * torch.sigmoid(gate))


class Grouped(Pooled):
    """Between two convolutions one with groups: 8 channels to 12, or depthwise, or two filters per channel."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__(5)
        self.stem, self.grouped = conv(3, inputs), conv(inputs, outputs, groups=groups)
        self.norm, self.last = nn.BatchNorm2d(outputs), conv(outputs, 5, 1)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.last(F.relu6(self.norm(self.grouped(F.relu(self.stem(x)))))))


class Shared(Pooled):
    def __init__(self) -> None:
        super().__init__(5)
        self.stem, self.shared, self.last = conv(3, 6), conv(6, 6), conv(6, 5)

    def features(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.shared(F.relu(self.shared(F.relu(self.stem(x)))))))


class Flattened(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.hidden, self.head = conv(3, 6), nn.Linear(6 * 16, 7), nn.Linear(7, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 2)
        return self.head(F.relu(self.hidden(torch.flatten(x, 1))))


class SqueezeExcite(Pooled):
    def __init__(self) -> None:
        super().__init__(5)
        self.stem, self.squeeze, self.excite, self.last = conv(3, 6), conv(6, 3, 1), conv(3, 6, 1), conv(6, 5)

    def features(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        scale = self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1))))
        return self.last(x * torch.sigmoid(scale))


class LayerScale(Pooled):
    def __init__(self) -> None:
        super().__init__(6)
        self.stem, self.inner, self.back = conv(3, 6), conv(6, 8, 1), conv(8, 6, 1)
        self.gamma = nn.Parameter(torch.empty(6, 1, 1))

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return x + self.gamma * self.back(F.gelu(self.inner(x)))


class StackSum(Pooled):
    def __init__(self) -> None:
        super().__init__(5)
        self.left, self.right, self.last = conv(3, 6), conv(3, 6, 1), conv(6, 5)

    def features(self, x: Tensor) -> Tensor:
        return self.last(F.relu(torch.stack([self.left(x), self.right(x)], dim=1).sum(dim=1)))


class Transposed(Pooled):
    def __init__(self) -> None:
        super().__init__(5)
        self.stem, self.up, self.last = conv(3, 6), nn.ConvTranspose2d(6, 4, 2, stride=2), conv(4, 5)

    def features(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.up(F.relu(self.stem(x)))))


class StridedMax(Pooled):
    """Each channel competes with its neighbour."""

    def __init__(self) -> None:
        super().__init__(5)
        self.stem, self.last = conv(3, 8), conv(4, 5)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(torch.maximum(x[:, ::2], x[:, 1::2]))


class Unused(Residual):
    def __init__(self) -> None:
        super().__init__()
        self.never = conv(6, 7)


class Branching(Residual):
    """The inputs decide which layer runs; all inputs of a use are of one kind."""

    def __init__(self) -> None:
        super().__init__()
        self.dark = conv(3, 6)

    def features(self, x: Tensor) -> Tensor:
        if x.mean() > 0:
            return super().features(x)
        return self.dark(x)


class PixelShuffle(Pooled):
    def __init__(self) -> None:
        super().__init__(5)
        self.stem, self.wide, self.last = conv(3, 6), conv(6, 16), conv(4, 5)

    def features(self, x: Tensor) -> Tensor:
        return self.last(F.relu(F.pixel_shuffle(self.wide(F.relu(self.stem(x))), 2)))


class ChannelPad(Pooled):
    """The shortcut of CIFAR ResNets: new channels are zero in it."""

    def __init__(self) -> None:
        super().__init__(10)
        self.stem, self.first, self.second = conv(3, 6), conv(6, 5, stride=2), conv(5, 10)

    def features(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return F.relu(self.second(F.relu(self.first(x))) + shortcut)


class SliceConcat(Pooled):
    """A convolution for the first channels only; the others pass."""

    def __init__(self) -> None:
        super().__init__(5)
        self.part = 3
        self.stem, self.partial, self.last = conv(3, 8), conv(3, 4), conv(9, 5)

    def features(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.last(torch.cat([self.partial(x[:, : self.part]), x[:, self.part :]], dim=1))


class Functional(Pooled):
    def __init__(self) -> None:
        super().__init__(5)
        self.stem, self.seen, self.last = conv(3, 6), nn.Identity(), conv(7, 5)
        self.kernel, self.bias = nn.Parameter(torch.empty(7, 6, 3, 3)), nn.Parameter(torch.empty(7))

    def features(self, x: Tensor) -> Tensor:
        x = self.seen(F.relu(self.stem(x)))
        return self.last(F.relu(F.conv2d(x, self.kernel, self.bias, padding=1)))


class Repeat(Pooled):
    def __init__(self) -> None:
        super().__init__(5)
        self.stem, self.last = conv(3, 6), conv(12, 5)

    def features(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.stem(x)).repeat(1, 2, 1, 1))


class ChannelShuffle(Pooled):
    """ShuffleNet's: the channels of two groups take turns."""

    def __init__(self) -> None:
        super().__init__(5)
        self.stem, self.norm, self.last = conv(3, 8), nn.BatchNorm2d(8), conv(8, 5)

    def features(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        count, channels, height, width = x.shape
        x = x.view(count, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        return self.last(x.view(count, channels, height, width))


class GroupNormed(Pooled):
    def __init__(self) -> None:
        super().__init__(5)
        self.stem, self.norm, self.last = conv(3, 8), nn.GroupNorm(2, 8), conv(8, 5)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.last(F.relu(self.norm(self.stem(x)))))
