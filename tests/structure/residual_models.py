"""Networks of residual blocks: some of them the identity without what they compute, some only close to it."""

import torch
from torch import Tensor, nn

from structure.networks import CLASSES, conv_bn, randomised

WIDTH = 6


class Residual(nn.Module):
    """relu(x + bn(conv(relu(bn(conv(x))))))."""

    def __init__(self, width: int = WIDTH, inner: int = 5) -> None:
        super().__init__()
        self.first = nn.Sequential(*conv_bn(width, inner), nn.ReLU(inplace=True))
        self.second = nn.Sequential(*conv_bn(inner, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))


class Bottleneck(nn.Module):
    """Two inner groups."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.branch = nn.Sequential(*conv_bn(width, 4, 1), nn.ReLU(), *conv_bn(4, 3), nn.ReLU(), *conv_bn(3, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.branch(x)
        return x.relu()


class Inverted(nn.Module):
    """Linear at its end, with a depthwise convolution and a squeeze within."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.expand = nn.Sequential(*conv_bn(width, 8, 1), nn.ReLU6())
        self.depth = nn.Sequential(*conv_bn(8, 8, groups=8), nn.ReLU6())
        self.squeeze = nn.Conv2d(8, 3, 1)
        self.excite = nn.Conv2d(3, 8, 1)
        self.project = nn.Sequential(*conv_bn(8, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depth(self.expand(x))
        y = y * torch.sigmoid(self.excite(torch.relu(self.squeeze(y.mean(dim=(2, 3), keepdim=True)))))
        return x + self.project(y)


class OfStream(nn.Module):
    """A depthwise convolution of the stream's own channels comes first, as in ConvNeXt."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.depth = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.BatchNorm2d(width)
        self.up = nn.Conv2d(width, 7, 1)
        self.down = nn.Conv2d(7, width, 1)
        self.scale = nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(torch.relu(self.up(self.norm(self.depth(x)))))
        return x + self.scale[:, None, None] * y


class Blocks(nn.Module):
    """A stem, blocks in a row, and a head."""

    def __init__(self, *blocks: nn.Module, relu: bool = True) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, WIDTH), nn.ReLU() if relu else nn.Identity())
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=(2, 3)))


class Twice(Blocks):
    """One block is called twice."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.blocks[0](self.blocks[0](x)).mean(dim=(2, 3)))


class Peeking(Blocks):
    """The model's own code looks into a block."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x) * float(len(block.first) > 0)
        return self.head(x.mean(dim=(2, 3)))


class Token(nn.Module):
    """A block of a transformer, on the pixels as tokens."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 10), nn.Linear(10, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        y = (q @ k.transpose(-2, -1) * (c // 2) ** -0.5).softmax(dim=-1) @ v
        x = x + self.out(y.transpose(1, 2).reshape(b, n, c))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class Tokens(nn.Module):
    """Two of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, stride=2)
        self.blocks = nn.Sequential(Token(), Token())
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.stem(x).flatten(2).transpose(1, 2))).mean(dim=1))


def mixed() -> nn.Module:
    """One of every kind."""
    torch.manual_seed(3)
    return randomised(Blocks(Residual(), Bottleneck(), OfStream(), Inverted()), seed=2)
