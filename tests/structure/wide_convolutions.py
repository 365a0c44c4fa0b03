"""Further convolutional networks: the blocks of well-known families, small, and their parts."""

from typing import Any

import torch
import torch.nn.functional as F
from acceptance_convolutions import Pooled, conv
from acceptance_oracle import Read
from acceptance_property import Case, image
from networks import CLASSES, conv_bn
from torch import Tensor, nn


class Around(Pooled):
    """A convolution with 6 channels, something in the middle, and one that reads `channels`."""

    def __init__(self, middle: nn.Module, channels: int = 6, first: int = 6) -> None:
        super().__init__(5)
        self.one = nn.Sequential(conv(3, first), nn.BatchNorm2d(first))
        self.middle, self.two = middle, conv(channels, 5)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.two(self.middle(self.one(x))))


def volume(count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, 2, 4, 4, 4, generator=generator)


def signal(count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, 3, 12, generator=generator)


def plain(convolution: Any, norm: Any, pool: Any, average: Any, inputs: int) -> nn.Module:
    return nn.Sequential(
        convolution(inputs, 6, 3, padding=1),
        norm(6),
        nn.LeakyReLU(),
        pool(2),
        convolution(6, 5, 3, padding=1),
        nn.ELU(),
        average(1),
        nn.Flatten(),
        nn.Linear(5, CLASSES),
    )


def conv1d() -> nn.Module:
    return plain(nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d, nn.AdaptiveAvgPool1d, 3)


def conv3d() -> nn.Module:
    return plain(nn.Conv3d, nn.BatchNorm3d, nn.AvgPool3d, nn.AdaptiveMaxPool3d, 2)


class ResNeXt(Pooled):
    def __init__(self) -> None:
        super().__init__(6)
        self.stem = nn.Sequential(*conv_bn(3, 6), nn.ReLU())
        self.reduce = nn.Sequential(*conv_bn(6, 8, 1), nn.ReLU())
        self.group = nn.Sequential(*conv_bn(8, 8, groups=4), nn.ReLU())
        self.expand = nn.Sequential(*conv_bn(8, 6, 1))

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return F.relu(x + self.expand(self.group(self.reduce(x))))


class DenseNet(Pooled):
    """Two dense layers with bottlenecks, then a transition."""

    def __init__(self) -> None:
        super().__init__(5)
        self.stem = conv(3, 4)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(n), nn.ReLU(), conv(n, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), conv(6, 3))
            for n in (4, 7)
        )
        self.transition = nn.Sequential(nn.BatchNorm2d(10), nn.ReLU(), conv(10, 5, 1), nn.AvgPool2d(2))

    def features(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return self.transition(torch.cat(features, 1))


class MobileNetV3(Pooled):
    def __init__(self) -> None:
        super().__init__(6)
        self.stem = nn.Sequential(*conv_bn(3, 6), nn.Hardswish(inplace=True))
        self.expand = nn.Sequential(*conv_bn(6, 10, 1), nn.Hardswish(inplace=True))
        self.depthwise = nn.Sequential(*conv_bn(10, 10, 5, groups=10), nn.Hardswish(inplace=True))
        self.pool, self.squeeze, self.excite = nn.AdaptiveAvgPool2d(1), conv(10, 4, 1), conv(4, 10, 1)
        self.project = nn.Sequential(*conv_bn(10, 6, 1))

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(self.expand(x))
        y = F.hardsigmoid(self.excite(F.relu(self.squeeze(self.pool(y))))) * y
        return self.project(y) + x


def shuffled(x: Tensor, groups: int) -> Tensor:
    count, channels, height, width = x.size()
    x = x.view(count, groups, channels // groups, height, width)
    return torch.transpose(x, 1, 2).contiguous().view(count, -1, height, width)


class ShuffleNetV2(Pooled):
    def __init__(self) -> None:
        super().__init__(5)
        self.stem = nn.Sequential(*conv_bn(3, 8), nn.ReLU())
        self.branch = nn.Sequential(
            *conv_bn(4, 6, 1), nn.ReLU(), *conv_bn(6, 6, groups=6), *conv_bn(6, 4, 1), nn.ReLU()
        )
        self.last = conv(8, 5)

    def features(self, x: Tensor) -> Tensor:
        left, right = self.stem(x).chunk(2, dim=1)
        return self.last(shuffled(torch.cat((left, self.branch(right)), dim=1), 2))


class ConvNeXt(Pooled):
    def __init__(self) -> None:
        super().__init__(6)
        self.stem, self.depthwise = nn.Conv2d(3, 6, 2, stride=2), conv(6, 6, groups=6)
        self.norm, self.wide, self.back = nn.LayerNorm(6, eps=1e-6), nn.Linear(6, 12), nn.Linear(12, 6)
        self.gamma = nn.Parameter(torch.empty(6))

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.gamma * self.back(F.gelu(self.wide(self.norm(y))))
        return x + y.permute(0, 3, 1, 2)


class Inception(Pooled):
    def __init__(self) -> None:
        super().__init__(5)
        self.stem = conv(3, 6)
        self.point, self.pooled, self.last = conv(6, 3, 1), conv(6, 4, 1), conv(12, 5, 1)
        self.deep = nn.Sequential(conv(6, 4, 1), nn.ReLU(), conv(4, 5))

    def features(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        pooled = self.pooled(F.max_pool2d(x, 3, stride=1, padding=1))
        return self.last(F.relu(torch.cat([self.point(x), self.deep(x), pooled], 1)))


class UNet(nn.Module):
    """The output is a map."""

    def __init__(self, transposed: bool) -> None:
        super().__init__()
        self.down, self.bottom = conv(3, 5), conv(5, 6)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2) if transposed else conv(6, 4)
        self.transposed, self.merge, self.maps = transposed, conv(9, 5), conv(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.down(x))
        x = F.relu(self.bottom(F.max_pool2d(skip, 2)))
        if not self.transposed:
            x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
        return self.maps(F.relu(self.merge(torch.cat([self.up(x), skip], dim=1))))


class SuperResolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.wide = conv(3, 8), conv(8, 6), conv(6, 12)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.wide(torch.tanh(self.two(torch.tanh(self.one(x)))))
        return self.shuffle(y) + F.interpolate(x, scale_factor=2, mode="nearest")


class Unshuffled(Pooled):
    def __init__(self) -> None:
        super().__init__(5)
        self.unshuffle = nn.PixelUnshuffle(2)
        self.stem, self.two = conv(12, 4), conv(16, 5)

    def features(self, x: Tensor) -> Tensor:
        return self.two(self.unshuffle(F.relu(self.stem(self.unshuffle(x)))))


class Pyramid(nn.Module):
    """Two scales meet by addition, and each has its head."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = conv(3, 5), conv(5, 6, stride=2)
        self.lateral, self.top = conv(5, 4, 1), conv(6, 4, 1)
        self.heads = nn.ModuleList([conv(4, 2), conv(4, 2)])

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = F.relu(self.fine(x))
        top = self.top(F.relu(self.coarse(fine)))
        merged = self.lateral(fine) + F.interpolate(top, scale_factor=2.0, mode="nearest")
        return [head(level) for head, level in zip(self.heads, (merged, top), strict=True)]


AROUND = {"one.0": 6, "two": 5}
STEM_LAST = (Read("one.1", "two"), Read("two", "head"))


def around(middle: Any) -> Case:
    return Case(lambda: Around(middle()), image, AROUND, reads=STEM_LAST)


WIDE_CONVOLUTIONS: dict[str, Case] = {
    "conv1d": Case(conv1d, signal, {"0": 6, "4": 5}),
    "conv3d": Case(conv3d, volume, {"0": 6, "4": 5}),
    "grouped transposed": Case(
        lambda: Around(nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2), 6, 8),
        image,
        {"one.0": 4, "middle": 3, "two": 5},
        reads=(Read("one.1", "middle"), Read("middle", "two"), Read("two", "head")),
    ),
    "three groups": Case(
        lambda: Around(conv(6, 9, groups=3), 9),
        image,
        {"one.0": 2, "middle": 3, "two": 5},
        reads=(Read("one.1", "middle"), Read("middle", "two"), Read("two", "head")),
    ),
    "resnext": Case(ResNeXt, image, {"stem.0": 6, "reduce.0": 2, "group.0": 2}),
    "densenet": Case(
        DenseNet,
        image,
        {"stem": 4, "layers.0.2": 6, "layers.0.5": 3, "layers.1.2": 6, "layers.1.5": 3, "transition.2": 5},
    ),
    "mobilenet v3": Case(MobileNetV3, image, {"stem.0": 6, "expand.0": 10, "depthwise.0": 10, "squeeze": 4}),
    "shufflenet v2": Case(ShuffleNetV2, image, {"stem.0": 4, "branch.0": 6, "branch.5": 4, "last": 5}),
    "convnext": Case(ConvNeXt, image, {"stem": 6, "wide": 12}, marked=("stem",)),
    "inception": Case(Inception, image, {"stem": 6, "point": 3, "deep.0": 4, "deep.2": 5, "pooled": 4, "last": 5}),
    "u-net, transposed": Case(lambda: UNet(True), image, {"down": 5, "bottom": 6, "up": 4, "merge": 5}),
    "u-net, interpolated": Case(lambda: UNet(False), image, {"down": 5, "bottom": 6, "up": 4, "merge": 5}),
    "super resolution": Case(SuperResolution, image, {"one": 8, "two": 6}, kept=("wide",)),
    "pixel unshuffle": Case(
        Unshuffled,
        image,
        {"stem": 4, "two": 5},
        reads=(Read("stem", "two", lambda i: range(4 * i, 4 * i + 4)), Read("two", "head")),
    ),
    "one prelu": around(nn.PReLU),
    "prelu per channel": around(lambda: nn.PReLU(6)),
    "instance norm": around(lambda: nn.InstanceNorm2d(6, affine=True)),
    "instance norm with statistics": around(lambda: nn.InstanceNorm2d(6, affine=True, track_running_stats=True)),
    "lp pooling": around(lambda: nn.LPPool2d(2, 2)),
    "upsample": around(lambda: nn.Upsample(scale_factor=1.5, mode="bicubic")),
    "dropout2d": around(lambda: nn.Sequential(nn.Dropout2d(), nn.ZeroPad2d(1), nn.ReflectionPad2d(1))),
    "pyramid": Case(Pyramid, image, {"fine": 5, "coarse": 6, "lateral": 4, "top": 4}),
}
