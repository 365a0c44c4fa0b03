"""The 16 networks of ncnn's benchmark as lists of layers, from their public architectures.

Sources: the papers named at each network, and the layer lists that ncnn ships (Tencent/ncnn, `benchmark/*.param`),
which decide where they differ from the paper: input sizes, padding, widths. Batch norm and ReLU are folded, as ncnn
does; swish and gates are counted. The MACs of every network equal those that were counted by running ncnn's files.
"""

import math
from collections.abc import Callable

from whyprune.structure.operation_costs import OperationCost, OperationKind, kind_of_convolution


class Shape:
    """A tensor of `channels` x `size` x `size` on its way; every call adds a layer."""

    def __init__(self, channels: int, size: int, layers: list[OperationCost] | None = None) -> None:
        self.channels, self.size = channels, size
        self.layers: list[OperationCost] = [] if layers is None else layers

    @property
    def count(self) -> int:
        """Numbers in the tensor."""
        return self.channels * self.size**2

    def branch(self) -> "Shape":
        """The same tensor, read once more."""
        return Shape(self.channels, self.size, self.layers)

    def conv(self, out: int, k: int, s: int = 1, p: int | None = None, groups: int = 1) -> "Shape":
        """A square convolution; padded to keep the size unless `p` says otherwise."""
        read, per_group = self.count, self.channels // groups
        self.size = (self.size + 2 * (k // 2 if p is None else p) - k) // s + 1
        kind = kind_of_convolution(per_group, groups, (k, k), (s, s))
        weights = out * per_group * k * k
        self.channels = out
        self._add(kind, weights * self.size**2, read, weights, (per_group, out))
        return self

    def depthwise(self, k: int, s: int = 1, p: int | None = None) -> "Shape":
        """A convolution of every channel by itself."""
        return self.conv(self.channels, k, s, p, self.channels)

    def pool(self, k: int, s: int, p: int = 0) -> "Shape":
        """Pooling, rounding up as Caffe and ncnn do."""
        read = self.count
        self.size = math.ceil((self.size + 2 * p - k) / s) + 1
        self._add("elementwise", 0, read)
        return self

    def global_pool(self) -> "Shape":
        """One number per channel."""
        read, self.size = self.count, 1
        self._add("elementwise", 0, read)
        return self

    def linear(self, out: int) -> "Shape":
        """A linear layer on the flattened tensor."""
        read = self.count
        self.channels, self.size = out, 1
        self._add("linear", read * out, read, read * out, (read, out))
        return self

    def elementwise(self, reads: int = 1) -> "Shape":
        """An operation on `reads` tensors of this shape."""
        self._add("elementwise", 0, reads * self.count)
        return self

    def squeeze_excite(self, hidden: int, activations: int) -> "Shape":
        """Global pooling, two linear layers, and a product with the tensor (arXiv 1709.01507)."""
        gate = self.branch().global_pool().linear(hidden)
        gate.linear(self.channels)
        for _ in range(activations):
            gate.elementwise()
        return self.elementwise()

    def joined(self, *others: "Shape") -> "Shape":
        """Tensors one after the other along the channels."""
        self.channels += sum(o.channels for o in others)
        self._add("elementwise", 0, self.count)
        return self

    def _add(
        self, kind: OperationKind, macs: int, reads: int, weights: int = 0, channels: tuple[int, int] = (1, 1)
    ) -> None:
        name = f"{kind}{len(self.layers)}"
        self.layers.append(OperationCost(name, kind, macs, reads, self.count, weights, channels))


def squeezenet() -> list[OperationCost]:
    """SqueezeNet 1.1, arXiv 1602.07360; 227x227; the last convolution is padded."""
    x = Shape(3, 227).conv(64, 3, 2, 0).pool(3, 2)
    for number, (squeeze, expand) in enumerate(
        [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]
    ):
        x.conv(squeeze, 1)
        three = x.branch().conv(expand, 3)
        x.conv(expand, 1).joined(three)
        if number in (1, 3):
            x.pool(3, 2)
    return x.conv(1000, 1, 1, 1).global_pool().layers


def mobilenet() -> list[OperationCost]:
    """MobileNet, arXiv 1704.04861."""
    x = Shape(3, 224).conv(32, 3, 2)
    for out, stride in [
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *[(512, 1)] * 5,
        (1024, 2),
        (1024, 1),
    ]:
        x.depthwise(3, stride).conv(out, 1)
    return x.global_pool().linear(1000).layers


def _inverted(x: Shape, hidden: int, out: int, k: int, stride: int) -> None:
    """An inverted bottleneck, arXiv 1801.04381."""
    residual = stride == 1 and x.channels == out
    if hidden != x.channels:
        x.conv(hidden, 1)
    x.depthwise(k, stride).conv(out, 1)
    if residual:
        x.elementwise(2)


def mobilenet_v2() -> list[OperationCost]:
    """MobileNetV2, arXiv 1801.04381; as in the Caffe model, the last 32-wide block keeps 28x28."""
    x = Shape(3, 224).conv(32, 3, 2).conv(32, 1)
    _inverted(x, 32, 16, 3, 1)
    blocks = [(96, 24, 2), (144, 24, 1), (144, 32, 2), (192, 32, 1), (192, 32, 1), (192, 64, 2), *[(384, 64, 1)] * 3]
    blocks += [(384, 96, 1), (576, 96, 1), (576, 96, 1), (576, 160, 2), (960, 160, 1), (960, 160, 1), (960, 320, 1)]
    for hidden, out, stride in blocks:
        _inverted(x, hidden, out, 3, stride)
    return x.conv(1280, 1).global_pool().linear(1000).layers


def mobilenet_v3() -> list[OperationCost]:
    """MobileNetV3 large, arXiv 1905.02244; the gate's hidden width is a quarter of the block's."""
    x = Shape(3, 224).conv(16, 3, 2).elementwise().elementwise(2)
    x.depthwise(3).conv(16, 1).elementwise(2)
    blocks = [
        (3, 64, 24, 0, 0, 2),
        (3, 72, 24, 0, 0, 1),
        (5, 72, 40, 1, 0, 2),
        (5, 120, 40, 1, 0, 1),
        (5, 120, 40, 1, 0, 1),
    ]
    blocks += [(3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1)]
    blocks += [
        (3, 480, 112, 1, 1, 1),
        (3, 672, 112, 1, 1, 1),
        (5, 672, 160, 1, 1, 1),
        (5, 672, 160, 1, 1, 2),
        (5, 960, 160, 1, 1, 1),
    ]
    for k, hidden, out, gated, swish, stride in blocks:
        residual = stride == 1 and x.channels == out
        x.conv(hidden, 1)
        if swish:
            x.elementwise()
        x.depthwise(k, stride)
        if gated:
            x.squeeze_excite(hidden // 4, 1)
        if swish or gated:
            x.elementwise()
        x.conv(out, 1)
        if residual:
            x.elementwise(2)
    x.conv(960, 1).elementwise().global_pool().elementwise()
    return x.linear(1280).elementwise().linear(1000).layers


def shufflenet() -> list[OperationCost]:
    """ShuffleNet, 3 groups, arXiv 1707.01083."""
    x = Shape(3, 224).conv(24, 3, 2).pool(3, 2)
    for stage, (width, blocks) in enumerate([(240, 4), (480, 8), (960, 4)]):
        for block in range(blocks):
            first = block == 0
            groups = 1 if stage == 0 and first else 3
            y = x.branch()
            out = width - x.channels if first else width
            # a bottleneck is a quarter of what the block adds
            y.conv((out if first and stage == 0 else width if not first else x.channels) // 4, 1, groups=groups)
            if groups > 1:
                y.elementwise()
            y.depthwise(3, 2 if first else 1).conv(out, 1, groups=3)
            if first:
                x.pool(3, 2).joined(y)
                x.elementwise()
            else:
                x.elementwise(2).elementwise()
    return x.global_pool().conv(1000, 1).layers


def shufflenet_v2() -> list[OperationCost]:
    """ShuffleNetV2 1.0x, arXiv 1807.11164."""
    x = Shape(3, 224).conv(24, 3, 2).pool(3, 2)
    for width, blocks in [(58, 4), (116, 8), (232, 4)]:
        left = x.branch().depthwise(3, 2).conv(width, 1)
        x.conv(width, 1).depthwise(3, 2).conv(width, 1).joined(left).elementwise()
        for _ in range(blocks - 1):
            x.channels = width
            right = x.branch().conv(width, 1).depthwise(3).conv(width, 1)
            x.joined(right).elementwise()
            x.elementwise()
    return x.conv(1024, 1).global_pool().linear(1000).layers


def _blocks(x: Shape, blocks: list[tuple[int, int, int, int]]) -> Shape:
    for k, hidden, out, stride in blocks:
        _inverted(x, hidden, out, k, stride)
    return x


def mnasnet() -> list[OperationCost]:
    """MnasNet (B1 widths), arXiv 1807.11626."""
    x = Shape(3, 224).conv(32, 3, 2).depthwise(3).conv(16, 1)
    _blocks(x, [(3, 48, 24, 2), (3, 72, 24, 1), (3, 72, 24, 1), (5, 72, 40, 2), (5, 120, 40, 1), (5, 120, 40, 1)])
    _blocks(x, [(5, 240, 80, 2), (5, 480, 80, 1), (5, 480, 80, 1), (3, 480, 96, 1), (3, 576, 96, 1), (5, 576, 192, 2)])
    _blocks(x, [*[(5, 1152, 192, 1)] * 3, (3, 1152, 320, 1)])
    return x.conv(1280, 1).global_pool().linear(1000).layers


def proxylessnasnet() -> list[OperationCost]:
    """ProxylessNAS for mobile, arXiv 1812.00332."""
    x = Shape(3, 224).conv(32, 3, 2).depthwise(3).conv(32, 1)
    _blocks(x, [(5, 48, 32, 2), (3, 96, 32, 1), (7, 96, 40, 2), (3, 120, 40, 1), (5, 120, 40, 1), (5, 120, 40, 1)])
    _blocks(x, [(7, 240, 80, 2), *[(5, 240, 80, 1)] * 3, (5, 480, 96, 1), *[(5, 288, 96, 1)] * 3])
    _blocks(x, [(7, 576, 192, 2), (7, 1152, 192, 1), (7, 576, 192, 1), (7, 576, 192, 1), (7, 1152, 320, 1)])
    return x.conv(1280, 1).global_pool().linear(1000).layers


def efficientnet_b0() -> list[OperationCost]:
    """EfficientNet-B0, arXiv 1905.11946."""
    x = Shape(3, 224).conv(32, 3, 2).elementwise()
    rows = [
        (1, 3, 16, 1, 1),
        (6, 3, 24, 2, 2),
        (6, 5, 40, 2, 2),
        (6, 3, 80, 3, 2),
        (6, 5, 112, 3, 1),
        (6, 5, 192, 4, 2),
        (6, 3, 320, 1, 1),
    ]
    for factor, k, out, repeats, first_stride in rows:
        for number in range(repeats):
            stride = first_stride if number == 0 else 1
            residual, hidden, squeezed = number > 0, factor * x.channels, x.channels // 4
            if factor > 1:
                x.conv(hidden, 1).elementwise()
            x.depthwise(k, stride).elementwise().squeeze_excite(squeezed, 1).conv(out, 1)
            if residual:
                x.elementwise(2)
    return x.conv(1280, 1).elementwise().global_pool().linear(1000).layers


def regnety_400m() -> list[OperationCost]:
    """RegNetY-400MF, arXiv 2003.13678: 8 channels per group, gates of a quarter of the block's input."""
    x = Shape(3, 224).conv(32, 3, 2)
    for width, blocks in [(48, 1), (104, 3), (208, 6), (440, 6)]:
        for block in range(blocks):
            stride, before = (2, x.channels) if block == 0 else (1, x.channels)
            if block == 0:
                x.branch().conv(width, 1, stride, 0)
            x.conv(width, 1).conv(width, 3, stride, groups=width // 8).squeeze_excite(before // 4, 0)
            x.conv(width, 1).elementwise(2).elementwise()
    return x.global_pool().linear(1000).layers


def googlenet() -> list[OperationCost]:
    """GoogLeNet, arXiv 1409.4842, with its local response normalisations."""
    x = Shape(3, 224).conv(64, 7, 2).pool(3, 2).elementwise().conv(64, 1).conv(192, 3).elementwise().pool(3, 2)
    rows = [
        (64, 96, 128, 16, 32, 32),
        (128, 128, 192, 32, 96, 64),
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
    ]
    rows += [(128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128)]
    rows += [(256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)]
    for number, (one, reduce3, three, reduce5, five, projected) in enumerate(rows):
        a = x.branch().conv(reduce3, 1).conv(three, 3)
        b = x.branch().conv(reduce5, 1).conv(five, 5)
        c = x.branch().pool(3, 1, 1).conv(projected, 1)
        x.conv(one, 1).joined(a, b, c)
        if number in (1, 6):
            x.pool(3, 2)
    return x.global_pool().linear(1000).layers


def resnet18() -> list[OperationCost]:
    """ResNet-18, arXiv 1512.03385."""
    x = Shape(3, 224).conv(64, 7, 2).pool(3, 2)
    for stage, width in enumerate([64, 128, 256, 512]):
        for block in range(2):
            stride = 2 if stage and block == 0 else 1
            if block == 0:
                x.branch().conv(width, 1, stride, 0)
            x.conv(width, 3, stride).conv(width, 3).elementwise(2)
    return x.global_pool().linear(1000).layers


def resnet50() -> list[OperationCost]:
    """ResNet-50, arXiv 1512.03385: the stride is in the first 1x1 convolution."""
    x = Shape(3, 224).conv(64, 7, 2).pool(3, 2)
    for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
        for block in range(blocks):
            stride = 2 if stage and block == 0 else 1
            if block == 0:
                x.branch().conv(4 * width, 1, stride, 0)
            x.conv(width, 1, stride, 0).conv(width, 3).conv(4 * width, 1).elementwise(2)
    return x.global_pool().linear(1000).layers


def alexnet() -> list[OperationCost]:
    """AlexNet (2012), two groups as published, 227x227."""
    x = Shape(3, 227).conv(96, 11, 4, 0).elementwise().pool(3, 2).conv(256, 5, 1, 2, 2).elementwise().pool(3, 2)
    x.conv(384, 3).conv(384, 3, groups=2).conv(256, 3, groups=2).pool(3, 2)
    return x.linear(4096).linear(4096).linear(1000).layers


def vgg16() -> list[OperationCost]:
    """VGG-16, arXiv 1409.1556."""
    x = Shape(3, 224)
    for width, blocks in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]:
        for _ in range(blocks):
            x.conv(width, 3)
        x.pool(2, 2)
    return x.linear(4096).linear(4096).linear(1000).layers


def blazeface() -> list[OperationCost]:
    """BlazeFace's body, arXiv 1907.05047, 128x128."""
    x = Shape(3, 128).conv(24, 5, 2, 2)
    blocks = [
        (24, 1),
        (28, 1),
        (32, 2),
        (36, 1),
        (42, 1),
        (48, 2),
        (56, 1),
        (64, 1),
        (72, 1),
        (80, 1),
        (88, 1),
        (96, 2),
    ]
    for out, stride in [*blocks, *[(96, 1)] * 4]:
        if stride == 2:
            x.branch().pool(2, 2)
        x.depthwise(3, stride).conv(out, 1).elementwise(2).elementwise()
    return x.layers


NETWORKS: dict[str, Callable[[], list[OperationCost]]] = {
    f.__name__: f
    for f in (
        squeezenet,
        mobilenet,
        mobilenet_v2,
        mobilenet_v3,
        shufflenet,
        shufflenet_v2,
        mnasnet,
        proxylessnasnet,
        efficientnet_b0,
        regnety_400m,
        googlenet,
        resnet18,
        alexnet,
        vgg16,
        resnet50,
        blazeface,
    )
}
