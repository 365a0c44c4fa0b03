"""Small networks, each with one thing that makes removal hard; batch norm and affine parameters are random."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whyprune.models import BUILT_INS, PadShortcut
from whyprune.structure.network import Network
from whyprune.structure.trace import trace

CLASSES = 4


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in evaluation mode, with batch-norm statistics, scales and shifts that are not 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.dim() == 1:
                tensor.normal_(0, 0.3, generator=generator)
            else:
                fan_in = tensor[0].numel()
                tensor.normal_(0, fan_in**-0.5 * 1.5, generator=generator)
    return model.eval()


def conv_bn(inputs: int, outputs: int, kernel: int = 3, **options: Any) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **options)
    return [conv, nn.BatchNorm2d(outputs)]


class Flat(nn.Module):
    """Channels of several pixels each, flattened in the way that `how` says, in front of a linear layer."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.features = nn.Sequential(*conv_bn(3, 6), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Linear(6 * 16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        if self.how == "flatten":
            x = torch.flatten(x, 1)
        elif self.how == "view_batch":
            x = x.view(x.size(0), -1)
        elif self.how == "view_constant":
            x = x.view(-1, 96)  # the line that names the width
        else:
            x = x.reshape(x.shape[0], x.shape[1] * x.shape[2] * x.shape[3])
        return self.head(x)


class Vgg(nn.Module):
    """Convolutions, a flatten of 2x2 pixels and two hidden linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(5, 7, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(28, 9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, CLASSES)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class Residual(nn.Module):
    """A stem and one block; the shortcut is the identity, a projection, or any callable."""

    def __init__(
        self, outputs: int = 6, projection: bool = False, shortcut: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, 6), nn.ReLU())
        self.first = nn.Sequential(*conv_bn(6, 5), nn.ReLU())
        self.second = nn.Sequential(*conv_bn(5, outputs))
        self.shortcut = nn.Sequential(*conv_bn(6, outputs, 1)) if projection else shortcut
        self.head = nn.Linear(outputs, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return self.head(F.relu(self.second(self.first(x)) + shortcut).mean(dim=(2, 3)))


class Closure(nn.Module):
    """Runs a function; the numbers in the function are nobody's attributes."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def pad_four_channels(x: Tensor) -> Tensor:
    return F.pad(x, (0, 0, 0, 0, 2, 2))


class PadAfter(nn.Module):
    """Pads channels on one side only, by an attribute."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, 0, 0, self.extra))


class SharedPad(nn.Module):
    """One padding module for two streams: its attributes cannot follow both."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 4, 3)
        self.right = nn.Conv2d(3, 4, 3)
        self.pad = PadShortcut(1, 1, 1)
        self.mix = nn.Conv2d(6, 6, 1)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.mix(self.pad(self.left(x))) + self.pad(self.right(x))).mean(dim=(2, 3)))


class Dense(nn.Module):
    """Each layer reads the concatenation of all earlier ones."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm1, self.conv1 = nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3, padding=1)
        self.norm2, self.conv2 = nn.BatchNorm2d(7), nn.Conv2d(7, 5, 3, padding=1)
        self.norm3, self.head = nn.BatchNorm2d(12), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.conv1(F.relu(self.norm1(x)))], 1)
        x = torch.cat([x, self.conv2(F.relu(self.norm2(x)))], dim=1)
        return self.head(F.relu(self.norm3(x)).mean(dim=(2, 3)))


def separable() -> nn.Module:
    return nn.Sequential(
        *conv_bn(3, 6, stride=2),
        nn.ReLU6(inplace=True),
        *conv_bn(6, 6, groups=6),
        nn.ReLU6(inplace=True),
        *conv_bn(6, 8, 1),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    )


def grouped() -> nn.Module:
    return nn.Sequential(
        *conv_bn(3, 8),
        nn.ReLU(),
        *conv_bn(8, 12, groups=2),
        nn.ReLU(),
        nn.Conv2d(12, 5, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, CLASSES),
    )


def depth_multiplier() -> nn.Module:
    """Two filters for every channel: the channels before cannot go one by one, the filters after can in rows."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(4, 8, 3, groups=4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    )


class FunctionalDepthwise(nn.Module):
    """Depthwise convolution as a function, with `groups` from a constant or from the shape."""

    def __init__(self, constant: bool) -> None:
        super().__init__()
        self.constant = constant
        self.stem = nn.Conv2d(3, 6, 3)
        self.kernel = nn.Parameter(torch.empty(6, 1, 3, 3))
        self.hidden = nn.Linear(6, 7)
        self.head = nn.Linear(7, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.conv2d(x, self.kernel, groups=6 if self.constant else x.shape[1])
        return self.head(F.relu(self.hidden(x.mean(dim=(2, 3)))))


class SqueezeExcite(nn.Module):
    """Every channel is scaled by a number computed from all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, 6), nn.SiLU())
        self.squeeze, self.excite = nn.Conv2d(6, 3, 1), nn.Conv2d(3, 6, 1)
        self.last = nn.Conv2d(6, 5, 1)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        scale = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.head(F.gelu(self.last(x * scale)).mean(dim=(2, 3)))


class SharedConv(nn.Module):
    """One convolution runs twice, one layer never."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3, padding=1)
        self.shared = nn.Conv2d(5, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(5)
        self.unused = nn.Linear(7, 3)
        self.last = nn.Conv2d(5, 6, 1)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.shared(F.relu(self.stem(x))))
        return self.head(F.relu(self.last(self.norm(self.shared(x)))).mean(dim=(2, 3)))


class Tied(nn.Module):
    """Two layers share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 6)
        self.one, self.other = nn.Linear(6, 6), nn.Linear(6, 6)
        self.other.weight = self.one.weight
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.other(F.relu(self.one(F.relu(self.inner(x)))))))


class TwoInputs(nn.Module):
    """Two inputs meet after a layer each; `names` makes the output a dict."""

    def __init__(self, names: bool = False) -> None:
        super().__init__()
        self.names = names
        self.image_part = nn.Conv2d(3, 6, 3)
        self.vector_part = nn.Linear(5, 6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, image: Tensor, vector: Tensor) -> Any:
        features = F.relu(self.image_part(image)).mean(dim=(2, 3))
        logits = self.head(features + torch.tanh(self.vector_part(vector)))
        return {"features_mean": features.mean(), "logits": logits} if self.names else logits


class TwoOutputs(nn.Module):
    """Logits and features: the features' channels are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.features = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 6, 3)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = F.relu(self.features(F.relu(self.stem(x)))).mean(dim=(2, 3))
        return self.head(features), features


class PreActivation(nn.Module):
    """The in-place ReLU changes the shortcut as well."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.inner(self.relu(x))
        y += x
        return self.head(y.mean(dim=(2, 3)))


class Strided(nn.Module):
    """Every second pixel by slicing; the channels pass."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 6, 1)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.one(x))[:, :, ::2, 1::2]
        return self.head(self.two(x).amax(dim=(2, 3)))


class Middle(nn.Module):
    """Two layers around an operation on the six channels between them; two more layers behind it."""

    def __init__(self, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.one = nn.Linear(5, 7)
        self.two = nn.Linear(7, 6)
        self.operation = operation
        self.three = nn.Linear(6, 8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.operation(self.two(F.relu(self.one(x))))
        return self.head(F.relu(self.three(x)))


class Images(nn.Module):
    """Two convolutions around an operation on the six channels between them."""

    def __init__(self, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 1)
        self.operation = operation
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.operation(self.one(x))).mean(dim=(2, 3)))


class LayerScale(nn.Module):
    """A bare parameter scales the channels, another one is a floor to them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 1)
        self.scale = nn.Parameter(torch.empty(6))
        self.floor = nn.Parameter(torch.empty(6, 1, 1))
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.maximum(self.one(x) * self.scale.view(1, -1, 1, 1), self.floor)
        return self.head(F.relu(self.two(x)).mean(dim=(2, 3)))


class Recomputed(nn.Module):
    """A weight that is computed in each pass: its layer is kept, its neighbours are not."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 6, 3)
        self.weight = nn.Parameter(torch.empty(7, 6, 1, 1))
        self.norm = nn.BatchNorm2d(7)
        self.two = nn.Conv2d(7, 5, 1)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(F.relu(self.one(x)), self.weight * 2)
        return self.head(F.relu(self.two(self.norm(x))).mean(dim=(2, 3)))


class Sequence(nn.Module):
    """A linear layer over the features of every step, normalised over the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 7)
        self.head = nn.Linear(7, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.two(F.relu(self.norm(self.one(x))))).mean(1))


def slid_over(x: Tensor) -> Tensor:
    return F.avg_pool1d(x.unsqueeze(1), 3, stride=1, padding=1).squeeze(1)


class Slid(nn.Module):
    """A convolution for which the channels are places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.unsqueeze(1)).squeeze(1)


def over_places() -> nn.Module:
    """The linear layer runs once for each channel of the convolution; its own outputs are flattened behind them."""
    return nn.Sequential(
        nn.Conv1d(3, 6, 3, padding=1), nn.Linear(8, 5), nn.ReLU(), nn.Flatten(), nn.Linear(30, CLASSES)
    )


def image() -> Tensor:
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def vector(*shape: int) -> Tensor:
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(2))


@dataclass(frozen=True)
class Case:
    """A network, what it runs on, and how many units of each of its groups can go."""

    build: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    removable: dict[str, int]


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, CLASSES)
    )


def conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 6, 3, padding=1),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.AvgPool1d(2),
        nn.Conv1d(6, 5, 3),
        nn.AdaptiveMaxPool1d(1),
        nn.Flatten(),
        nn.Linear(5, CLASSES),
    )


def activation(function: nn.Module, affine: bool = True) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6, affine=affine),
        function,
        nn.Conv2d(6, 5, 1),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(5, CLASSES),
    )


EVERY = {"one": 7, "two": 6, "three": 8}
AROUND = {"one": 7, "three": 8}  # what stays removable when the operation in `Middle` refuses its channels

CASES: dict[str, Case] = {
    "mlp": Case(mlp, lambda: vector(5), {"0": 8, "3": 6}),
    "flatten": Case(lambda: Flat("flatten"), image, {"features.0": 6}),
    "view batch": Case(lambda: Flat("view_batch"), image, {"features.0": 6}),
    "view constant": Case(lambda: Flat("view_constant"), image, {}),
    "view shape": Case(lambda: Flat("view_shape"), image, {"features.0": 6}),
    "vgg": Case(Vgg, image, {"features.0": 5, "features.3": 7, "classifier.0": 9, "classifier.3": 8}),
    "conv1d": Case(conv1d, lambda: vector(3, 8), {"0": 6, "4": 5}),
    "residual": Case(Residual, image, {"stem.0": 6, "first.0": 5}),
    "projection": Case(lambda: Residual(9, projection=True), image, {"stem.0": 6, "first.0": 5, "shortcut.0": 9}),
    "pad shortcut": Case(
        lambda: Residual(10, shortcut=PadShortcut(1, 2, 2)), image, {"stem.0": 6, "first.0": 5, "second.0": 4}
    ),
    "pad after": Case(lambda: Residual(10, shortcut=PadAfter(4)), image, {"stem.0": 6, "first.0": 5, "second.0": 4}),
    "pad closure": Case(lambda: Residual(10, shortcut=Closure(pad_four_channels)), image, {"stem.0": 6, "first.0": 5}),
    "pad shared": Case(SharedPad, image, {"left": 4, "mix": 4}),
    "concat": Case(Dense, image, {"stem": 4, "conv1": 3, "conv2": 5}),
    "separable": Case(separable, image, {"0": 6, "6": 8}),
    "grouped": Case(grouped, image, {"0": 4, "3": 6, "6": 5}),
    "depth multiplier": Case(depth_multiplier, image, {"0": 4}),
    "functional depthwise": Case(lambda: FunctionalDepthwise(False), image, {"stem": 6, "hidden": 7}),
    "constant depthwise": Case(lambda: FunctionalDepthwise(True), image, {"hidden": 7}),
    "squeeze excite": Case(SqueezeExcite, image, {"stem.0": 6, "squeeze": 3, "last": 5}),
    "shared conv": Case(SharedConv, image, {"stem": 5, "last": 6}),
    "tied": Case(Tied, lambda: vector(5), {"inner": 6}),
    "two inputs": Case(TwoInputs, lambda: (image(), vector(5)), {"image_part": 6}),
    "dicts": Case(lambda: TwoInputs(names=True), lambda: {"vector": vector(5), "image": image()}, {"image_part": 6}),
    "two outputs": Case(TwoOutputs, image, {"stem": 5}),
    "pre-activation": Case(PreActivation, image, {"stem": 6}),
    "strided": Case(Strided, image, {"one": 5, "two": 6}),
    "layer scale": Case(LayerScale, image, {"one": 6, "two": 5}),
    "recomputed": Case(Recomputed, image, {"weight": 7, "one": 6, "two": 5}),
    "sequence": Case(Sequence, lambda: vector(6, 5), {"one": 6, "two": 7}),
    "linear over places": Case(over_places, lambda: vector(3, 8), {"0": 6}),
    "sigmoid": Case(lambda: activation(nn.Sigmoid()), image, {"0": 6, "3": 5}),
    "batch norm without affine": Case(lambda: activation(nn.ReLU(), affine=False), image, {"0": 6, "3": 5}),
    "operation: fft": Case(lambda: Middle(lambda x: torch.fft.fft(x).real), lambda: vector(5), AROUND),
    "operation: cumsum": Case(lambda: Middle(lambda x: x.cumsum(1)), lambda: vector(5), AROUND),
    "operation: layer norm": Case(lambda: Middle(nn.LayerNorm(6)), lambda: vector(5), EVERY),
    "operation: softmax": Case(lambda: Middle(nn.Softmax(-1)), lambda: vector(5), EVERY),
    "operation: sum": Case(lambda: Middle(lambda x: x + x.sum(1, keepdim=True)), lambda: vector(5), EVERY),
    "operation: convolution": Case(lambda: Middle(Slid()), lambda: vector(5), AROUND),
    "operation: pooling": Case(lambda: Middle(slid_over), lambda: vector(5), AROUND),
    "operation: group norm": Case(lambda: Images(nn.GroupNorm(2, 6)), image, {"one": 3, "two": 5}),
    "operation: instance norm": Case(lambda: Images(nn.InstanceNorm2d(6, affine=True)), image, {"one": 6, "two": 5}),
    "operation: shuffle": Case(lambda: Images(nn.ChannelShuffle(2)), image, {"one": 3, "two": 5}),
    "operation: upsample": Case(
        lambda: Images(nn.Upsample(scale_factor=2, mode="bilinear")), image, {"one": 6, "two": 5}
    ),
}


def built_in_inputs(name: str) -> Tensor:
    side = {"vgg16_bn": 32, "digits_cnn": 8}.get(name, 8)
    channels = BUILT_INS[name].image_shape[0]
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(3))


def build(name: str, seed: int = 0) -> nn.Module:
    """A case's or a built-in network, in evaluation mode, with random parameters and statistics."""
    if name in CASES:
        return randomised(CASES[name].build(), seed)
    return randomised(BUILT_INS[name].build(10, BUILT_INS[name].image_shape[0]), seed)


@cache
def traced(name: str) -> Network:
    """Each network is traced once for all tests; nothing may change it."""
    inputs = CASES[name].inputs() if name in CASES else built_in_inputs(name)
    return trace(build(name), inputs)
