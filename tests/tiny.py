"""A small residual network, trained on digits in a few seconds, and batches of digits."""

from functools import cache

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

LABELLED = list[tuple[Tensor, Tensor]]


class Tiny(nn.Module):
    """(B, 1, 8, 8) to ten logits: a stem, one block, a wider layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(8, 10, 3, padding=1, bias=False), nn.BatchNorm2d(10), nn.ReLU())
        self.outer = nn.Sequential(nn.Conv2d(10, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.wide = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.outer(self.inner(x)))
        return self.head(self.wide(x).mean(dim=(2, 3)))


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Images (1797, 1, 8, 8) in [-1, 1] and labels, shuffled."""
    bunch = load_digits()
    order = torch.randperm(len(bunch.target), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(bunch.images).float().unsqueeze(1) / 8 - 1
    return images[order], torch.from_numpy(bunch.target)[order]


def batches(first: int, last: int, size: int = 64) -> LABELLED:
    images, labels = digits()
    return list(zip(images[first:last].split(size), labels[first:last].split(size), strict=True))


@cache
def trained() -> Tiny:
    """Nothing may change it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Tiny()
        optimizer = torch.optim.AdamW(model.parameters(), 0.01)
        for _ in range(6):
            for images, labels in batches(0, 1000, 50):
                optimizer.zero_grad()
                F.cross_entropy(model(images), labels).backward()
                optimizer.step()
    return model.eval()
