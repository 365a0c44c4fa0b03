"""Blocks of which random networks are composed: what people put between two convolutions."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from random_modules import Bare, Excite, Last, Op, Parts, Scale, Shuffle
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from wide_channels import coordinates, maxout, sliced, squeezed, written_to_clone
from wide_convolutions import shuffled

from whyprune.models import PadShortcut

MOST = 12  # channels; and twice as many where a block has doubled them


@dataclass(frozen=True)
class Shape:
    """Images of `channels` channels and `side` times `side` places."""

    channels: int
    side: int

    def of(self, channels: int) -> "Shape":
        return replace(self, channels=channels)


Draw = Callable[[Any], Any]
Made = tuple[nn.Module, Shape]
Maker = Callable[[Draw, Shape], Made]
IMAGES: dict[str, tuple[Callable[[Shape], bool], Maker]] = {}

widths = st.integers(2, 5)
sources = st.sampled_from(("shape", "shape", "attribute", "attribute", "constant"))
activations = st.sampled_from(
    (nn.ReLU, nn.Sigmoid, nn.SiLU, nn.Tanh, nn.Hardswish, nn.GELU, nn.Softplus, lambda: nn.ReLU(inplace=True))
)


def block(when: Callable[[Shape], bool] = lambda _: True) -> Callable[[Maker], Maker]:
    """Registers a block for images of the shapes for which `when` holds."""

    def register(make: Maker) -> Maker:
        IMAGES[make.__name__] = when, make
        return make

    return register


@st.composite
def image_block(draw: Draw, shape: Shape) -> Made:
    """A block that runs on images of a shape, and the shape that it gives."""
    names = sorted(name for name, (when, _) in IMAGES.items() if when(shape))
    return IMAGES[draw(st.sampled_from(names))][1](draw, shape)


def even(shape: Shape) -> bool:
    return shape.channels % 2 == 0


def narrow(shape: Shape) -> bool:
    return shape.channels <= MOST // 2


# Layers with weights


def body(inputs: int, inner: int, outputs: int, kernel: int = 3) -> nn.Module:
    options: dict[str, Any] = {"padding": kernel // 2, "bias": False}
    return nn.Sequential(
        nn.Conv2d(inputs, inner, kernel, **options),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
        nn.Conv2d(inner, outputs, kernel, **options),
    )


@block()
def conv(draw: Draw, s: Shape) -> Made:
    outputs, kernel = draw(widths), draw(st.sampled_from((1, 3)))
    layer: nn.Module = nn.Conv2d(s.channels, outputs, kernel, padding=kernel // 2, bias=draw(st.booleans()))
    if draw(st.integers(0, 5)) == 5:
        layer = weight_norm(layer)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), draw(activations)()), s.of(outputs)


@block(even)
def grouped(draw: Draw, s: Shape) -> Made:
    groups = draw(st.sampled_from([g for g in (2, 3, 4) if s.channels % g == 0]))
    outputs = groups * draw(st.integers(1, 3))
    return nn.Conv2d(s.channels, outputs, 3, padding=1, groups=groups, bias=draw(st.booleans())), s.of(outputs)


@block(narrow)
def depthwise(draw: Draw, s: Shape) -> Made:
    outputs = s.channels * draw(st.sampled_from((1, 1, 2)))
    return nn.Conv2d(s.channels, outputs, 3, padding=1, groups=s.channels, bias=draw(st.booleans())), s.of(outputs)


@block()
def transposed(draw: Draw, s: Shape) -> Made:
    if draw(st.booleans()) and s.side <= 4:
        outputs = draw(widths)
        return nn.ConvTranspose2d(s.channels, outputs, 2, stride=2), Shape(outputs, 2 * s.side)
    groups = draw(st.sampled_from([g for g in (1, 2, s.channels) if s.channels % g == 0]))
    outputs = groups * (draw(st.sampled_from((1, 2))) if narrow(s) else 1)
    return nn.ConvTranspose2d(s.channels, outputs, 3, padding=1, groups=groups), s.of(outputs)


@block()
def bare(draw: Draw, s: Shape) -> Made:
    outputs = draw(widths)
    return Bare(s.channels, outputs, draw(st.sampled_from(("conv", "einsum")))), s.of(outputs)


@block()
def shared(draw: Draw, s: Shape) -> Made:
    layer = nn.Conv2d(s.channels, s.channels, 1)
    return nn.Sequential(layer, draw(activations)(), layer), s


# Statistics, and value by value


@block()
def norm(draw: Draw, s: Shape) -> Made:
    c, affine = s.channels, draw(st.booleans())
    kinds: dict[str, Callable[[], nn.Module]] = {
        "batch": lambda: nn.BatchNorm2d(c, affine=affine),
        "instance": lambda: nn.InstanceNorm2d(c, affine=affine, track_running_stats=draw(st.booleans())),
        "group": lambda: nn.GroupNorm(draw(st.sampled_from([g for g in (1, 2, 3, c) if c % g == 0])), c, affine=affine),
        "layer": lambda: Last(nn.LayerNorm(c, elementwise_affine=affine)),
        "rms": lambda: Last(nn.RMSNorm(c)),
        "all": lambda: nn.LayerNorm((c, s.side, s.side), elementwise_affine=affine),
        "softmax": lambda: nn.Softmax(1),
        "unit": lambda: Op("normalize", lambda x: F.normalize(x, dim=1)),
    }
    return kinds[draw(st.sampled_from(sorted(kinds)))](), s


@block()
def activation(draw: Draw, s: Shape) -> Made:
    return draw(st.sampled_from((nn.PReLU(s.channels), nn.PReLU(), draw(activations)()))), s


@block()
def scale(draw: Draw, s: Shape) -> Made:
    return Scale(s.channels, draw(st.sampled_from(("flat", "places", "batch"))), draw(st.booleans())), s


@block()
def excite(draw: Draw, s: Shape) -> Made:
    inner = draw(widths)
    if draw(st.booleans()):
        return Excite(draw(sources), s.channels, inner), s
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), body(s.channels, inner, s.channels, 1))
    return Op("excite", lambda x, part: x * part(x).sigmoid(), pooled), s


@block()
def plain(draw: Draw, s: Shape) -> Made:
    """Numbers of channels stay as they are; how they are reached differs."""
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "clone": written_to_clone,
        "squeeze": squeezed,
        "roll places": lambda x: x.roll((1, -1), (2, 3)),
        "roll channels": lambda x: x.roll(1, 1),
        "flip": lambda x: x.flip(1),
        "spatial": lambda x: (
            x * torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1).sum(1, True).sigmoid()
        ),
        "centred": lambda x: x - x.mean(1, keepdim=True),
        "one channel": lambda x: x * x[:, 1:2].sigmoid(),
        "swapped": sliced,
    }
    name = draw(st.sampled_from(sorted(functions)))
    return Op(name, functions[name]), s


# Two ways that meet


def branch(draw: Draw, s: Shape, outputs: int) -> nn.Module:
    return body(s.channels, draw(widths), outputs, draw(st.sampled_from((1, 3))))


@block()
def residual(draw: Draw, s: Shape) -> Made:
    how = draw(st.sampled_from(("add", "in place", "stack sum", "stack max", "gate")))
    functions: dict[str, Callable[..., Tensor]] = {
        "add": lambda x, way: F.relu(x + way(x)),
        "in place": lambda x, way: way(x).add_(x),
        "stack sum": lambda x, way: torch.stack([x, way(x)]).sum(0),
        "stack max": lambda x, way: torch.stack([x, way(x)], dim=2).amax(2),
        "gate": lambda x, way: x * way(x).tanh(),
    }
    return Op(how, functions[how], branch(draw, s, s.channels)), s


@block()
def projection(draw: Draw, s: Shape) -> Made:
    outputs = draw(widths)
    shortcut = nn.Conv2d(s.channels, outputs, 1)
    return Op("sum", lambda x, one, other: one(x) + other(x), branch(draw, s, outputs), shortcut), s.of(outputs)


@block(narrow)
def padded(draw: Draw, s: Shape) -> Made:
    front, back = draw(st.integers(0, 2)), draw(st.integers(1, 2))
    outputs = s.channels + front + back
    return Op(
        "sum", lambda x, one, other: one(x) + other(x), branch(draw, s, outputs), PadShortcut(1, front, back)
    ), s.of(outputs)


@block(narrow)
def concat(draw: Draw, s: Shape) -> Made:
    outputs = draw(widths)
    first = draw(st.booleans())
    layer = nn.Conv2d(s.channels, outputs, 1)
    made = Op("join", lambda x, way: torch.cat([x, way(x)] if first else [way(x), x], 1), layer)
    return made, s.of(s.channels + outputs)


# Cutting and moving channels


@block(even)
def gated(draw: Draw, s: Shape) -> Made:
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "glu": lambda x: F.glu(x, 1),
        "chunk": lambda x: x.chunk(2, dim=1)[0] * x.chunk(2, dim=1)[1].sigmoid(),
        "slice": lambda x: x[:, : x.shape[1] // 2] * x[:, x.shape[1] // 2 :],
        "split": lambda x: torch.mul(*x.split(x.shape[1] // 2, 1)),
        "interleaved": lambda x: x[:, ::2] * x[:, 1::2].sigmoid(),
        "maxout": maxout,
    }
    name = draw(st.sampled_from(sorted(functions)))
    return Op(name, functions[name]), s.of(s.channels // 2)


@block(lambda s: s.channels > 2)
def parts(draw: Draw, s: Shape) -> Made:
    left, outputs, joined = draw(st.integers(1, s.channels - 1)), draw(widths), draw(st.booleans())
    made = Parts(draw(sources), left, s.channels - left, outputs, joined)
    return made, s.of(outputs * (1 + joined))


@block(even)
def channel_shuffle(draw: Draw, s: Shape) -> Made:
    made = [nn.ChannelShuffle(2), Shuffle(draw(sources), s.channels), Op("shuffled", lambda x: shuffled(x, 2))]
    return draw(st.sampled_from(made)), s


@block(lambda s: s.channels % 4 == 0 and s.side <= 4)
def pixel_shuffle(_draw: Draw, s: Shape) -> Made:
    return nn.PixelShuffle(2), Shape(s.channels // 4, 2 * s.side)


@block(lambda s: s.channels <= 4 and s.side >= 4)
def pixel_unshuffle(_draw: Draw, s: Shape) -> Made:
    return nn.PixelUnshuffle(2), Shape(4 * s.channels, s.side // 2)


@block(narrow)
def repeated(draw: Draw, s: Shape) -> Made:
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "repeat": lambda x: x.repeat(1, 2, 1, 1),
        "interleave": lambda x: x.repeat_interleave(2, dim=1),
        "cat": lambda x: torch.cat([x, x.sigmoid()], dim=1),
        "expand": lambda x: x.unsqueeze(2).expand(-1, -1, 2, -1, -1).flatten(1, 2),
    }
    name = draw(st.sampled_from(sorted(functions)))
    return Op(name, functions[name]), s.of(2 * s.channels)


@block(narrow)
def coordinated(_draw: Draw, s: Shape) -> Made:
    return Op("coordinates", coordinates), s.of(s.channels + 2)


# Places


@block()
def places(draw: Draw, s: Shape) -> Made:
    kinds: dict[str, tuple[nn.Module, int]] = {
        "max": (nn.MaxPool2d(3, 1, 1), s.side),
        "average": (nn.AvgPool2d(3, 1, 1), s.side),
        "adaptive": (nn.AdaptiveAvgPool2d(2), 2),
        "every": (Op("every second", lambda x: x[:, :, ::2, ::2]), (s.side + 1) // 2),
    }
    if s.side <= 4:
        kinds["nearest"] = nn.Upsample(scale_factor=2), 2 * s.side
        kinds["bilinear"] = Op("interpolate", lambda x: F.interpolate(x, size=(4, 4), mode="bilinear")), 4
    made, side = kinds[draw(st.sampled_from(sorted(kinds)))]
    return made, Shape(s.channels, side)
