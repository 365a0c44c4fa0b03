"""Further networks: parts of tensors are written in place, as people do it to save memory."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from acceptance_convolutions import Pooled, conv
from acceptance_property import Case, image, tokens
from networks import CLASSES
from torch import Tensor, nn
from wide_channels import Between


def first_two(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, :2].mul_(3)
    return x


def halves(x: Tensor) -> Tensor:
    x = x.clone()
    half = x.shape[1] // 2
    x[:, :half] += x[:, half:]
    return x


def every_second(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, ::2] *= 0.5
    return x


def inner(x: Tensor) -> Tensor:
    x = x * 1.0
    x[:, 1:4] = F.relu(x[:, 1:4])
    return x


def one_channel(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 3] = x[:, 1] * 2
    return x


def border(x: Tensor) -> Tensor:
    x = x.clone()
    x[..., 0] = 0.5
    x[:, :, -1] = x[:, :, 0]
    x[:, :, 2:4, 3:5] = 0
    return x


def corners(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, :, torch.tensor([0, -1]), torch.tensor([0, -1])] = 2.0
    x[:, :, [1, 2]] += 1
    return x


def below(x: Tensor) -> Tensor:
    x = x.clone()
    x[x < 0] = -1.0
    return x


def lit(x: Tensor) -> Tensor:
    return x.clone().index_fill_(2, torch.tensor([1, 3]), 0.5)


def rows_masked(x: Tensor) -> Tensor:
    x = x.clone()
    rows = torch.arange(x.shape[2]) % 2 == 0
    x[:, :, rows] = 0.25
    return x


class Canvas(Pooled):
    """Two branches are written into one empty tensor."""

    def __init__(self) -> None:
        super().__init__(5)
        self.left, self.right, self.two = conv(3, 4), conv(3, 4), conv(8, 5)

    def features(self, x: Tensor) -> Tensor:
        left, right = self.left(x), self.right(x)
        both = left.new_zeros(left.shape[0], 2 * left.shape[1], *left.shape[2:])
        both[:, : left.shape[1]] = left
        both[:, left.shape[1] :] = right
        return F.relu(self.two(F.relu(both)))


class Shifted(Pooled):
    """Temporal shift: parts of the channels move by one step, as in TSM; here along the rows."""

    def __init__(self) -> None:
        super().__init__(5)
        self.one, self.two = conv(3, 8), conv(8, 5)

    def features(self, x: Tensor) -> Tensor:
        x = self.one(x)
        fold = x.shape[1] // 4
        out = torch.zeros_like(x)
        out[:, :fold, :-1] = x[:, :fold, 1:]
        out[:, fold : 2 * fold, 1:] = x[:, fold : 2 * fold, :-1]
        out[:, 2 * fold :] = x[:, 2 * fold :]
        return F.relu(self.two(out))


class Masked(nn.Module):
    """Some tokens are replaced by one that is learned; the first one gets its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.hidden = nn.Linear(5, 6), nn.Linear(6, 7)
        self.token, self.first = nn.Parameter(torch.empty(6)), nn.Parameter(torch.empty(6))
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(7, CLASSES)
        self.register_buffer("mask", torch.tensor([False, True, False, True, True, False]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x[:, self.mask] = self.token
        x[:, 0] = self.first
        x = self.norm(x)
        return self.head(F.gelu(self.hidden(x)).mean(1))


def between(operation: Callable[[Tensor], Tensor], one: int, two: int = 5, **about: object) -> Case:
    must = {"one": one, "two": two} if one else {"two": two}
    return Case(lambda: Between(operation), image, must, **about)  # type: ignore[arg-type]


WIDE_WRITING: dict[str, Case] = {
    "written: first two channels": between(first_two, 0, either=("one",)),
    "written: half from half": between(halves, 3),
    "written: every second channel": between(every_second, 0, either=("one",)),
    "written: inner channels": between(inner, 0, either=("one",)),
    "written: one channel": between(one_channel, 0, kept=("one",)),
    "written: borders": between(border, 6),
    "written: corners": between(corners, 6),
    "written: under a mask of values": between(below, 6),
    "written: index fill": between(lit, 6),
    "written: masked rows": between(rows_masked, 6),
    "written: two branches": Case(Canvas, image, {"left": 4, "right": 4, "two": 5}, either=("left",)),
    "written: shifted parts": Case(Shifted, image, {"two": 5}, either=("one",)),
    "written: learned tokens": Case(Masked, tokens, {"embed": 6, "hidden": 7}, marked=("embed",)),
}
