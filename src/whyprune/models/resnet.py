"""ResNets for small images, with shortcuts that have no parameters.

He et al., Deep Residual Learning for Image Recognition, arXiv:1512.03385, section 4.2, shortcut option A.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from whyprune.models.initialization import initialize


class PadShortcut(nn.Module):
    """Every `stride`-th pixel, with zero channels added; no parameters.

    Attributes:
        stride: step between the pixels kept, in rows and columns.
        before: zero channels put before the input's.
        after: zero channels put after the input's.
    """

    def __init__(self, stride: int, before: int, after: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = before
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, before + C + after, ceil(H / stride), ceil(W / stride))."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))

    def extra_repr(self) -> str:
        """The attributes, for `repr`."""
        return f"stride={self.stride}, before={self.before}, after={self.after}"


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the shortcut is the identity (None) where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        added = outputs - inputs
        changes = stride != 1 or added != 0
        self.shortcut = PadShortcut(stride, added // 2, added - added // 2) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


class CifarResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels, with `blocks` blocks each: 6 x blocks + 2 layers."""

    def __init__(self, blocks: int, num_classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(blocks, 16, 16, stride=1)
        self.layer2 = _stage(blocks, 16, 32, stride=2)
        self.layer3 = _stage(blocks, 32, 64, stride=2)
        self.linear = nn.Linear(64, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to logits (B, num_classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def _stage(blocks: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


def resnet20(num_classes: int = 10, channels: int = 3) -> CifarResNet:
    """20 layers, 0.27 million parameters."""
    return CifarResNet(3, num_classes, channels)


def resnet56(num_classes: int = 10, channels: int = 3) -> CifarResNet:
    """56 layers, 0.85 million parameters."""
    return CifarResNet(9, num_classes, channels)
