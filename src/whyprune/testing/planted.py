"""Networks whose units are known: copies, a cancelling pair, a dead one, a bystander, one of one class, a backup."""

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whyprune.data.batches import Batch
from whyprune.structure.network import Network
from whyprune.structure.trace import trace

COPY, OTHER_COPY, PLUS, MINUS, DEAD, BYSTANDER, ORIGINAL, ONE_CLASS, PLAIN = range(9)
TWINS = ((COPY, OTHER_COPY), (PLUS, MINUS), (BYSTANDER, ORIGINAL))
"""Units that compute the same."""
UNITS, CLASSES, SPECIAL = 9, 3, 2
PRIMARY, BACKUP = 0, 1


class Planted(nn.Module):
    """(B, 2, 6, 6) to three logits; the planted units are read by one convolution or by two."""

    def __init__(self, readers: int) -> None:
        super().__init__()
        self.units = nn.Conv2d(2, UNITS, 3, padding=1)
        self.left = nn.Conv2d(UNITS, 5, 3, padding=1)
        self.right = nn.Conv2d(UNITS, 5, 1) if readers == 2 else None
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2, 6, 6) to (B, 3)."""
        x = F.relu(self.units(x))
        y = self.left(x) if self.right is None else self.left(x) + self.right(x)
        logits: Tensor = self.head(F.relu(y).mean(dim=(2, 3)))
        return logits


def planted(readers: int = 1, seed: int = 0) -> Planted:
    """The network, in evaluation mode, with random weights around the planted ones."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = Planted(readers).eval()
        filters = torch.randn(UNITS, 2, 3, 3)
        filters[:, 1] = 0
        filters[OTHER_COPY] = filters[COPY]
        filters[MINUS] = filters[PLUS]
        filters[BYSTANDER] = filters[ORIGINAL]
        filters[ONE_CLASS, 0] = 0
        filters[ONE_CLASS, 1] = torch.rand(3, 3)  # sees the second input channel, and nothing else
        model.units.weight.copy_(filters)
        bias = torch.zeros(UNITS)
        bias[DEAD] = -1000
        model.units.bias = nn.Parameter(bias)
        for layer in (model.left, model.right):
            if layer is not None:
                weight = torch.randn_like(layer.weight)
                weight[:, OTHER_COPY] = weight[:, COPY]
                weight[:, MINUS] = -weight[:, PLUS]
                weight[:, BYSTANDER] = 0
                layer.weight.copy_(weight)
        return model


@dataclass(frozen=True)
class Case:
    """A planted network, traced, with images (N, 2, 6, 6) and labels (N,)."""

    network: Network
    images: Tensor
    labels: Tensor

    @property
    def batch(self) -> Batch:
        """All images with their labels."""
        return Batch((self.images,), {}, self.labels)

    def unit(self, index: int) -> str:
        """The name of a planted unit."""
        return f"units:{index}"


@cache
def case(readers: int = 1, images: int = 96) -> Case:
    """The second input channel is there in images of class `SPECIAL` only."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(images) % CLASSES
    x = torch.randn(images, 2, 6, 6, generator=generator)
    x[:, 1] = x[:, 1].abs() * (labels == SPECIAL).view(-1, 1, 1)
    return Case(trace(planted(readers), x[:3]), x, labels)


class Preempted(nn.Module):
    """(B, 2, 6, 6) to three logits; a backup acts when the primary unit is gone, and only then."""

    def __init__(self) -> None:
        super().__init__()
        self.units = nn.Conv2d(2, 4, 3, padding=1)
        self.gate = nn.Conv2d(4, 4, 1, bias=False)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2, 6, 6) to (B, 3)."""
        x = F.relu(self.gate(F.relu(self.units(x))))
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


def preempted(seed: int = 0) -> Preempted:
    """Both see the same; channel 0 of the gate is the primary unit, channel 1 is what the backup has more than it."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = Preempted().eval()
        filters = torch.randn(4, 2, 3, 3)
        filters[BACKUP] = filters[PRIMARY]
        model.units.weight.copy_(filters)
        bias = torch.rand(4)
        bias[BACKUP] = bias[PRIMARY]
        model.units.bias = nn.Parameter(bias)
        gate = torch.zeros(4, 4, 1, 1)
        gate[0, PRIMARY] = gate[1, BACKUP] = 1
        gate[1, PRIMARY] = -1
        gate[2:, 2:] = torch.randn(2, 2, 1, 1)
        model.gate.weight.copy_(gate)
        head = torch.randn(CLASSES, 4)
        head[:, 1] = head[:, 0]
        model.head.weight.copy_(head)
        return model


@cache
def preemption(images: int = 96) -> Case:
    """The four units of the first layer, of which two are `PRIMARY` and `BACKUP`."""
    x = torch.randn(images, 2, 6, 6, generator=torch.Generator().manual_seed(6))
    network = trace(preempted(), x[:3]).ignoring(["gate"])
    return Case(network, x, torch.arange(images) % CLASSES)
