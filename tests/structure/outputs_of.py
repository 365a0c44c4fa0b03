"""Small networks that return something else than one vector of logits, each of the same two layers."""

from collections import namedtuple
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pair = namedtuple("Pair", ["map", "scores"])


@dataclass
class Detected:
    map: Tensor
    scores: Tensor


KINDS = {
    "one number": lambda y, z: z[:, 0],
    "one logit": lambda y, z: z[:, :1],
    "map": lambda y, z: y,
    "boxes": lambda y, z: y.flatten(2).transpose(1, 2),
    "sequence first": lambda y, z: y.flatten(2).permute(2, 0, 1),
    "windows": lambda y, z: y.flatten(2).transpose(1, 2).reshape(-1, 2),
    "tuple": lambda y, z: (y, z),
    "named tuple": Pair,
    "list": lambda y, z: [z, y],
    "dict": lambda y, z: {"map": y, "scores": z},
    "dataclass": Detected,
    "nested": lambda y, z: {"boxes": [y, (z, (z > 0).long())], "anchors": torch.arange(3.0), "stride": 4, "none": None},
    "complex": lambda y, z: torch.complex(y, 2 * y),
}


class Returns(nn.Module):
    """(B, 2, 6, 6) to whatever `kind` says; both layers' channels reach all of it."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.first, self.second = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(5, 4, 3, padding=1)
        self.map, self.scores = nn.Conv2d(4, 2, 1), nn.Linear(4, 3)

    def forward(self, x):
        x = F.relu(self.second(F.relu(self.first(x))))
        return KINDS[self.kind](self.map(x), self.scores(x.mean((2, 3)) + x.amax((2, 3))))


class Headed(nn.Module):
    """Two heads, alike but for a factor; `wrap` says what is returned of them."""

    def __init__(self, factor=100.0, wrap=lambda a, b: (a, b)):
        super().__init__()
        self.factor, self.wrap = factor, wrap
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.left, self.right = nn.Conv2d(6, 5, 3, padding=1), nn.Conv2d(6, 5, 3, padding=1)
        self.to_left, self.to_right = nn.Linear(5, 3), nn.Linear(5, 3)
        self.right.load_state_dict(self.left.state_dict())
        self.to_right.load_state_dict(self.to_left.state_dict())

    def forward(self, x):
        x = F.relu(self.stem(x))
        left, right = (F.relu(layer(x)).mean((2, 3)) for layer in (self.left, self.right))
        return self.wrap(self.to_left(left), self.factor * self.to_right(right))


def built(module, seed=0):
    """The module with lively weights, in evaluation mode."""
    torch.manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    if isinstance(module, Headed):
        module.right.load_state_dict(module.left.state_dict())
        module.to_right.load_state_dict(module.to_left.state_dict())
    return module.eval()


def pictures(count, seed=1):
    return torch.randn(count, 2, 6, 6, generator=torch.Generator().manual_seed(seed))
