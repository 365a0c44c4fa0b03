"""A toy task that a tiny network with batch norm and dropout learns in seconds."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset


class Tiny(nn.Sequential):
    """(B, 3, 6, 6) to two logits."""

    def __init__(self, width: int = 6, dropout: float = 0.2) -> None:
        super().__init__(
            nn.Conv2d(3, width, 3),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, 2),
        )


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shift = torch.randn(64, 3, 1, 1, generator=generator)
    return torch.randn(64, 3, 6, 6, generator=generator) + shift


@pytest.fixture
def labels(images: Tensor) -> Tensor:
    return (images.mean((1, 2, 3)) > 0).long()


@pytest.fixture
def dataset(images: Tensor, labels: Tensor) -> TensorDataset:
    return TensorDataset(images, labels)


@pytest.fixture
def network() -> nn.Module:
    return make_network(0)


@pytest.fixture
def make() -> Callable[..., nn.Module]:
    return make_network


def make_network(seed: int, width: int = 6, dropout: float = 0.2) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Tiny(width, dropout)
