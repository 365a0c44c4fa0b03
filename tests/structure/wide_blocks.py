"""Further networks: blocks of published networks, as people write them."""

from typing import Any

import torch
import torch.nn.functional as F
from acceptance_convolutions import Pooled, conv
from acceptance_property import Case, image, tokens
from networks import CLASSES
from torch import Tensor, nn


def block(inputs: int, outputs: int, kernel: int = 3, groups: int = 1, stride: int = 1) -> nn.Module:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


class Ghost(Pooled):
    """Cheap features beside real ones; an odd width cuts the last cheap one off."""

    def __init__(self) -> None:
        super().__init__(7)
        self.width = 9
        self.stem, self.real, self.cheap, self.last = block(3, 6), block(6, 5, 1), block(5, 5, 3, 5), block(9, 7)

    def features(self, x: Tensor) -> Tensor:
        real = self.real(self.stem(x))
        return self.last(torch.cat([real, self.cheap(real)], 1)[:, : self.width])


class SelectiveKernel(Pooled):
    """Two kernels share out every channel by a softmax over the kernels."""

    def __init__(self) -> None:
        super().__init__(6)
        self.width = 6
        self.stem = block(3, 6)
        self.kernels = nn.ModuleList([block(6, 6, 3), block(6, 6, 5)])
        self.squeeze, self.choices = nn.Linear(6, 4), nn.ModuleList([nn.Linear(4, 6), nn.Linear(4, 6)])

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        found = torch.cat([kernel(x) for kernel in self.kernels], 1)
        found = found.view(x.shape[0], 2, self.width, *x.shape[2:])
        squeezed = self.squeeze(found.sum(1).mean(-1).mean(-1))
        share = torch.stack([choice(squeezed) for choice in self.choices], 1).softmax(1)
        return (found * share[..., None, None]).sum(1)


class Res2(Pooled):
    """Parts of the channels pass through one convolution after the other, each with the one before added."""

    def __init__(self) -> None:
        super().__init__(6)
        self.part = 3
        self.stem, self.widen, self.narrow = block(3, 6), block(6, 9, 1), conv(9, 6)
        self.layers = nn.ModuleList(block(3, 3) for _ in range(2))

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        first, second, third = torch.split(self.widen(x), self.part, 1)
        one = self.layers[0](first)
        two = self.layers[1](one + second)
        return F.relu(self.narrow(torch.cat([one, two, third], 1)) + x)


class Pyramid(nn.Module):
    """Detection heads shared by the levels of a pyramid; a tuple of pairs comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = block(3, 5), block(5, 6, stride=2)
        self.lateral = nn.ModuleDict({"fine": nn.Conv2d(5, 4, 1), "coarse": nn.Conv2d(6, 4, 1)})
        self.smooth = nn.ModuleDict({name: conv(4, 4) for name in self.lateral})
        self.classes = nn.Sequential(conv(4, 6), nn.GroupNorm(3, 6), nn.ReLU(), nn.Conv2d(6, 2, 1))
        self.boxes = nn.Conv2d(4, 4, 1)
        self.scales = nn.ParameterList([nn.Parameter(torch.empty(1)) for _ in self.lateral])

    def forward(self, x: Tensor) -> Any:
        fine = self.fine(x)
        coarse = self.coarse(fine)
        levels = {"coarse": self.lateral["coarse"](coarse)}
        levels["fine"] = self.lateral["fine"](fine) + F.interpolate(levels["coarse"], size=fine.shape[-2:])
        found = {name: self.smooth[name](level) for name, level in levels.items()}
        return tuple(
            (self.classes(found[name]), torch.exp(0.1 * self.boxes(found[name]) * scale))
            for name, scale in zip(self.lateral, self.scales, strict=True)
        )


class Modulated(Pooled):
    """A shift and a factor for every normalised channel, computed from all of them."""

    def __init__(self) -> None:
        super().__init__(6)
        self.stem, self.modulate, self.norm = block(3, 6), nn.Linear(6, 12), nn.InstanceNorm2d(6)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        factor, shift = self.modulate(x.mean((2, 3))).chunk(2, 1)
        return self.norm(x) * (1 + factor[:, :, None, None]) + shift[:, :, None, None]


class Mirrored(nn.Module):
    """An auto-encoder whose decoder is its encoder's kernel, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.middle, self.shift = conv(3, 6), block(6, 6), nn.Parameter(torch.empty(3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(self.middle(F.relu(self.encode(x))), self.encode.weight, self.shift, padding=1)


class Blurred(Pooled):
    """Every channel is blurred before it is sampled down; the kernel is a buffer, its count an attribute."""

    def __init__(self) -> None:
        super().__init__(5)
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.stem, self.last, self.channels = block(3, 6), block(6, 5), 6
        self.register_buffer("kernel", (line[:, None] * line).repeat(6, 1, 1, 1))

    def features(self, x: Tensor) -> Tensor:
        x = F.pad(self.stem(x), (1, 1, 1, 1), "reflect")
        return self.last(F.conv2d(x, self.kernel, stride=2, groups=self.channels))


class Latents(nn.Module):
    """A few learned tokens attend to the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.heads = nn.Parameter(torch.empty(3, 8)), 2
        self.query, self.both, self.out = nn.Linear(8, 8), nn.Linear(5, 16), nn.Linear(8, 8)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        count = x.shape[0]
        latents = self.tokens.unsqueeze(0).expand(count, -1, -1)
        parts = (self.query(latents), *self.both(x).chunk(2, -1))
        query, key, value = (t.reshape(count, -1, self.heads, t.shape[-1] // self.heads).transpose(1, 2) for t in parts)
        found = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return self.head(self.norm(latents + self.out(found)).mean(1))


class Recurrent(nn.Module):
    """A gated recurrence by hand, one step after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.gate, self.head = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        gate, state = torch.sigmoid(self.gate(x)), torch.zeros(x.shape[0], x.shape[2], dtype=x.dtype)
        for step in range(x.shape[1]):
            state = gate[:, step] * state + (1 - gate[:, step]) * x[:, step]
        return self.head(state)


WIDE_BLOCKS: dict[str, Case] = {
    "ghost, odd width": Case(Ghost, image, {"stem.0": 6, "real.0": 5, "last.0": 7}),
    "selective kernel": Case(SelectiveKernel, image, {"stem.0": 6, "kernels.0.0": 6, "squeeze": 4}),
    "res2net": Case(Res2, image, {"stem.0": 6, "widen.0": 3}, either=("layers.0.0", "layers.1.0")),
    "pyramid, shared heads": Case(
        Pyramid, image, {"fine.0": 5, "coarse.0": 6, "lateral.fine": 4, "smooth.fine": 4, "classes.0": 3}
    ),
    "modulated": Case(Modulated, image, {"stem.0": 6}),
    "mirrored": Case(Mirrored, image, {"encode": 6}),
    "blurred": Case(Blurred, image, {"stem.0": 6, "last.0": 5}),
    "learned latents": Case(Latents, tokens, {"out": 8, "query": 2}, marked=("out",)),
    "recurrence by hand": Case(Recurrent, tokens, {"embed": 8}),
}
