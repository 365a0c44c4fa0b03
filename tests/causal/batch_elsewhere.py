"""Networks that hold the images of a batch somewhere else than in front, some of them written in two ways."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from structure.networks import randomised

CHANNELS, CLASSES, STEPS = 4, 4, 8


class EitherWay(nn.Module):
    """(B, C, T) to logits, with time or images first inside: the same function of the same parameters.

    `middle` is what stands between two residual layers and the head: nothing, a transformer layer, attention, recurrent
    layers, linear layers over images and steps merged into one dimension, convolutions over time.
    """

    def __init__(self, middle: str, time_first: bool) -> None:
        super().__init__()
        self.middle, self.time_first = middle, time_first
        self.into, self.down, self.up = nn.Linear(CHANNELS, 12), nn.Linear(12, 10), nn.Linear(10, 12)
        if middle == "encoder":
            self.part: nn.Module = nn.TransformerEncoderLayer(12, 2, 16, dropout=0.0, batch_first=not time_first)
        elif middle == "attention":
            self.part = nn.MultiheadAttention(12, 3, batch_first=not time_first)
        elif middle in ("LSTM", "GRU", "RNN"):
            self.part = getattr(nn, middle)(12, 12, batch_first=not time_first)
        elif middle == "state":  # two layers, two directions: the last states are (layers x directions, B, H)
            self.part = nn.LSTM(12, 6, 2, batch_first=not time_first, bidirectional=True)
        elif middle == "convolutions":
            self.part = nn.Sequential(nn.Conv1d(12, 9, 3, padding=1), nn.ReLU(), nn.Conv1d(9, 12, 3, padding="same"))
        else:
            self.part = nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 12))
        self.head = nn.Linear(24 if middle == "state" else 12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x.permute(2, 0, 1) if self.time_first else x.transpose(1, 2))
        x = F.relu(x + self.up(F.relu(self.down(x))))
        if self.middle == "encoder":
            x = self.part(x)
        elif self.middle == "attention":
            x = self.part(x, x, x, need_weights=False)[0]
        elif self.middle in ("LSTM", "GRU", "RNN"):
            x = self.part(x)[0]
        elif self.middle == "state":
            return self.head(self.part(x)[1][0].transpose(0, 1).flatten(1))
        elif self.middle == "merged":
            x = self.part(x.flatten(0, 1)).reshape(x.shape)
        elif self.time_first:
            x = self.part(x.permute(1, 2, 0)).permute(2, 0, 1)
        else:
            x = self.part(x.transpose(1, 2)).transpose(1, 2)
        return self.head(x.mean(0 if self.time_first else 1))


MIDDLES = ("encoder", "attention", "LSTM", "GRU", "RNN", "state", "merged", "convolutions")


def both(middle: str, seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """Time first and images first, with the same parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        one, other = EitherWay(middle, True), EitherWay(middle, False)
    randomised(one)
    other.load_state_dict(one.state_dict())
    return one.eval(), other.eval()


class Frames(nn.Module):
    """(B, F, C, H, W): every frame through the same convolutions, frames outside or inside the images."""

    def __init__(self, outside: bool) -> None:
        super().__init__()
        self.outside = outside
        self.one, self.two, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        images, frames = x.shape[:2]
        x = (x.transpose(0, 1) if self.outside else x).flatten(0, 1)
        x = F.relu(self.two(F.relu(self.one(x)))).mean((2, 3))
        x = x.reshape(frames, images, -1).amax(0) if self.outside else x.reshape(images, frames, -1).amax(1)
        return self.head(x)


class Windows(nn.Module):
    """(B, C, 4, 4) in windows of 2 x 2 that become (B x 4, 4, C), with a mask for every window and head."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.qkv, self.out = nn.Linear(3, 6), nn.Linear(6, 18), nn.Linear(6, 6)
        self.up, self.down = nn.Linear(6, 9), nn.Linear(9, 6)
        self.head = nn.Linear(6, CLASSES)
        self.register_buffer("mask", torch.randn(4, 1, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        images = x.shape[0]
        x = x.reshape(images, 3, 2, 2, 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, 3)
        x = F.relu(self.into(x))
        q, k, v = self.qkv(x).reshape(-1, 4, 3, 2, 3).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-1, -2)
        scores = (scores.reshape(images, 4, 2, 4, 4) + self.mask).reshape(-1, 2, 4, 4)
        x = x + self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, 4, 6))
        x = x + self.down(F.relu(self.up(x)))
        return self.head(F.relu(x).reshape(images, 16, 6).mean(1))


class LastToken(nn.Module):
    """Tokens (B, T) with padding 0: the value at the last token, found by counting, and a mask of each head."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.attention = nn.Embedding(9, 12), nn.MultiheadAttention(12, 2)
        self.inner, self.head = nn.Linear(12, 7), nn.Linear(7, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens).transpose(0, 1)
        x = x + self.attention(x, x, x, key_padding_mask=tokens == 0, need_weights=False)[0]
        x = F.relu(self.inner(x)).transpose(0, 1)
        last = (tokens != 0).sum(1) - 1
        return self.head(x[torch.arange(tokens.shape[0]), last])


class GivenState(nn.Module):
    """The recurrent layer starts from a state that the user gives, (B, H)."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.inner, self.head = nn.Linear(3, 7), nn.Linear(7, 5), nn.Linear(6, CLASSES)
        self.part = nn.GRU(5, 6)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        x, _ = self.part(F.relu(self.inner(F.relu(self.into(x)))).transpose(0, 1), state[None])
        return self.head(x[-1])


class Queries(nn.Module):
    """Learned queries for every image look at what the image holds."""

    def __init__(self, alone: bool = False) -> None:
        super().__init__()
        self.alone = alone  # whether the queries are made before they are repeated, of parameters alone
        self.into, self.queries, self.grow = nn.Linear(3, 8), nn.Parameter(torch.randn(5, 8)), nn.Linear(8, 6)
        self.shrink, self.attention, self.head = nn.Linear(6, 8), nn.MultiheadAttention(8, 2), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x).transpose(0, 1)
        queries = self.queries[:, None] if self.alone else self.queries[:, None].repeat(1, x.shape[1], 1)
        queries = queries + self.shrink(F.relu(self.grow(queries)))
        queries = queries.repeat(1, x.shape[1], 1) if self.alone else queries
        return self.head(self.attention(queries, x, x, need_weights=False)[0].amax(0))


def tokens(count: int) -> Tensor:
    drawn = torch.randint(1, 9, (count, 6))
    return drawn.where(torch.arange(6) < torch.randint(2, 7, (count, 1)), torch.zeros(()).long())


def others() -> dict[str, tuple[nn.Module, Any]]:
    """Name -> (network, what makes inputs for so many images)."""
    return {
        "frames outside": (Frames(True), lambda n: torch.randn(n, 3, 3, 6, 6)),
        "frames inside": (Frames(False), lambda n: torch.randn(n, 3, 3, 6, 6)),
        "windows": (Windows(), lambda n: torch.randn(n, 3, 4, 4)),
        "last token": (LastToken(), tokens),
        "given state": (GivenState(), lambda n: (torch.randn(n, 5, 3), torch.randn(n, 6))),
        "queries": (Queries(), lambda n: torch.randn(n, 5, 3)),
        "queries alone": (Queries(alone=True), lambda n: torch.randn(n, 5, 3)),
    }
