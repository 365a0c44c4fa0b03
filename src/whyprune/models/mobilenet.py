"""MobileNet-V2 for 32x32 images: the stem and the first down-sampling stage keep the size.

Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018, arXiv:1801.04381, table 2.
"""

from collections.abc import Iterator

from torch import Tensor, nn

from whyprune.models.initialization import initialize

# Expansion, output channels, blocks, stride of the first block; the paper strides the 24-channel stage by 2.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM_CHANNELS = 32
LAST_CHANNELS = 1280


class InvertedResidual(nn.Module):
    """Expand (1x1), filter each channel (3x3), project (1x1); a shortcut where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [] if expansion == 1 else list(_conv_bn_relu(inputs, hidden, 1))
        self.layers = nn.Sequential(
            *expand,
            *_conv_bn_relu(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        out: Tensor = self.layers(x)
        return x + out if self.has_shortcut else out


class CifarMobileNetV2(nn.Module):
    """17 inverted residuals between a 3x3 stem and a 1x1 head, then one linear layer."""

    def __init__(self, num_classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv_bn_relu(channels, STEM_CHANNELS, 3))
        self.blocks = nn.Sequential(*_blocks())
        self.head = nn.Sequential(*_conv_bn_relu(STAGES[-1][1], LAST_CHANNELS, 1))
        self.classifier = nn.Linear(LAST_CHANNELS, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to logits (B, num_classes)."""
        x = self.head(self.blocks(self.stem(x)))
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return logits


def _blocks() -> Iterator[InvertedResidual]:
    inputs = STEM_CHANNELS
    for expansion, outputs, count, stride in STAGES:
        for block in range(count):
            yield InvertedResidual(inputs, outputs, expansion, stride if block == 0 else 1)
            inputs = outputs


def _conv_bn_relu(inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1) -> Iterator[nn.Module]:
    yield nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    yield nn.BatchNorm2d(outputs)
    yield nn.ReLU6(inplace=True)


def mobilenet_v2(num_classes: int = 10, channels: int = 3) -> CifarMobileNetV2:
    """53 layers, 2.2 million parameters."""
    return CifarMobileNetV2(num_classes, channels)
