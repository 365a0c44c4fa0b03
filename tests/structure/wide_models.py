"""Further networks: recurrent ones, tied and normalised weights, all kinds of inputs, outputs and numbers."""

from typing import Any

import torch
import torch.nn.functional as F
from acceptance_convolutions import Pooled, Residual, conv
from acceptance_oracle import Read
from acceptance_property import Case, image, tokens, vector
from networks import CLASSES, conv_bn
from torch import Generator, Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class Recurrent(nn.Module):
    """A linear layer, a recurrent one, and a hidden layer on its last step."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.embed, self.recurrent = nn.Linear(5, 6), kind(6, 7, batch_first=True)
        self.hidden, self.head = nn.Linear(7, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.recurrent(torch.tanh(self.embed(x)))
        return self.head(F.relu(self.hidden(steps[:, -1])))


class Words(nn.Module):
    """A bag of words."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.hidden, self.head = nn.Linear(6, 8), nn.Linear(8, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(F.relu(self.hidden(self.embedding(ids).mean(dim=1))))


class Autoencoder(nn.Module):
    """The decoder is the encoder, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.head = nn.Linear(5, 12), nn.Linear(12, CLASSES)
        self.weight, self.encoded = nn.Parameter(torch.empty(6, 12)), nn.Parameter(torch.empty(6))
        self.decoded = nn.Parameter(torch.empty(12))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(F.linear(torch.relu(self.before(x)), self.weight, self.encoded))
        return self.head(torch.relu(F.linear(hidden, self.weight.t(), self.decoded)))


class WeightNormed(Pooled):
    """The third layer's weight is normalised over the channels that it reads."""

    def __init__(self) -> None:
        super().__init__(5)
        self.one, self.two = weight_norm(conv(3, 6)), conv(6, 7)
        self.last = weight_norm(conv(7, 5, 1))

    def features(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.two(F.relu(self.one(x)))))


class SharedModule(Pooled):
    """One module under two names, and one tower for two views of the input."""

    def __init__(self) -> None:
        super().__init__(6)
        self.stem = nn.Sequential(*conv_bn(3, 6), nn.ReLU())
        self.first = nn.Sequential(conv(6, 6), nn.ReLU())
        self.second = self.first

    def features(self, x: Tensor) -> Tensor:
        left, right = self.stem(x), self.stem(x.flip(-1))
        return self.second(self.first(left)) - self.first(right)


class TwoStreams(nn.Module):
    """Two inputs; `form` says what comes in and goes out."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.image_part, self.vector_part = conv(3, 6), nn.Linear(5, 6)
        self.hidden, self.head, self.other = nn.Linear(6, 7), nn.Linear(7, CLASSES), nn.Linear(7, 2)

    def forward(self, image: Tensor, vector: Tensor | None = None) -> Any:
        x = F.relu(self.image_part(image)).mean(dim=(2, 3))
        if vector is not None:
            x = x + self.vector_part(vector)
        x = F.relu(self.hidden(x))
        logits, other = self.head(x), self.other(x)
        return {"logits": logits, "other": (other, other.sum(1))} if self.form == "dict" else (logits, [other])


class Supervised(Pooled):
    """A head in the middle and one at the end."""

    def __init__(self) -> None:
        super().__init__(5)
        self.one, self.two, self.early = conv(3, 6), conv(6, 5), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x = F.relu(self.one(x))
        return self.head(F.relu(self.two(x)).mean((2, 3))), self.early(x.mean((2, 3)))


class Chosen(Pooled):
    """Two branches by name, of which one runs."""

    def __init__(self) -> None:
        super().__init__(5)
        self.active, self.stem = "wide", conv(3, 6)
        self.branches = nn.ModuleDict({"wide": conv(6, 8), "narrow": conv(6, 8, 1)})
        self.last = conv(8, 5)

    def features(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.branches[self.active](F.relu(self.stem(x)))))


class InPlace(Pooled):
    """Parts of a tensor are written in place: places, then channels."""

    def __init__(self) -> None:
        super().__init__(5)
        self.one, self.two, self.last = conv(3, 6), conv(6, 7), conv(7, 5)

    def features(self, x: Tensor) -> Tensor:
        x = self.one(x).clone()
        x[:, :, 0] = 0
        x[:, :, ::2] *= 2
        return self.last(F.relu(self.two(x)))


def words(count: int, generator: Generator) -> Tensor:
    return torch.randint(0, 11, (count, 6), generator=generator)


def pair(count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    return image(count, generator), vector(count, generator)


def named(count: int, generator: Generator) -> dict[str, Tensor]:
    return {"vector": vector(count, generator), "image": image(count, generator)}


def low_precision(count: int, generator: Generator) -> Tensor:
    return image(count, generator).to(torch.bfloat16)


def double(count: int, generator: Generator) -> Tensor:
    return image(count, generator).double()


RECURRENT = {"hidden": 8}
STREAMS = {"image_part": 6, "hidden": 7}

WIDE_MODELS: dict[str, Case] = {
    "lstm": Case(lambda: Recurrent(nn.LSTM), tokens, RECURRENT, either=("embed", "recurrent")),
    "gru": Case(lambda: Recurrent(nn.GRU), tokens, RECURRENT, either=("embed", "recurrent")),
    "elman": Case(lambda: Recurrent(nn.RNN), tokens, RECURRENT, either=("embed", "recurrent")),
    "words": Case(Words, words, {"embedding": 6, "hidden": 8}, reads=(Read("hidden", "head"),)),
    "tied transposed": Case(Autoencoder, vector, {"weight": 6, "before": 12}),
    "weight norm": Case(
        WeightNormed,
        image,
        {"one": 6},
        either=("two",),
        reads=(Read("one", "two"), Read("two", "last"), Read("last", "head")),
    ),
    "shared module": Case(SharedModule, image, {"stem.0": 6}),
    "tuple in, dict out": Case(lambda: TwoStreams("dict"), pair, {**STREAMS, "vector_part": 6}),
    "dict in, tuple out": Case(lambda: TwoStreams("tuple"), named, {**STREAMS, "vector_part": 6}),
    "optional input": Case(lambda: TwoStreams("dict"), image, STREAMS),
    "deep supervision": Case(
        Supervised, image, {"one": 6, "two": 5}, reads=(Read("one", "two"), Read("one", "early"), Read("two", "head"))
    ),
    "module dict": Case(
        Chosen,
        image,
        {"stem": 6, "branches.wide": 8, "last": 5},
        reads=(Read("stem", "branches.wide"), Read("branches.wide", "last"), Read("last", "head")),
    ),
    "bfloat16": Case(lambda: Residual().to(torch.bfloat16), low_precision, {"stem": 6, "first": 5}, tolerance=0.05),
    "float64": Case(lambda: Residual().double(), double, {"stem": 6, "first": 5}, tolerance=1e-10),
    "written in parts": Case(InPlace, image, {"two": 7, "last": 5}),
}
