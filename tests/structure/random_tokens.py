"""Blocks of which random networks are composed, for tokens: attention as people write it, and layers around it."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from acceptance_attention import FeedForward
from hypothesis import strategies as st
from random_blocks import Draw, Made, Shape, sources, widths
from random_modules import Numbered, Op
from torch import Tensor, nn
from wide_attention import ClassicQkv, FusedQkv, Gated, GroupedQuery, Separate

HEADS = st.integers(1, 3)


class Einsum(Separate):
    """The two products of attention as einsums, over heads that are split off in place."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (y.unflatten(-1, (self.num_heads, -1)) for y in (self.query(x), self.key(x), self.value(x)))
        weights = (torch.einsum("blhe,bmhe->bhlm", q, k) * self.head_dim**-0.5).softmax(-1)
        return self.proj(torch.einsum("bhlm,bmhe->blhe", weights, v).flatten(2))


class SelfAttention(nn.Module):
    """torch's own, on one input."""

    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(width, heads, bias=bias, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x, x, need_weights=False)[0]


class FusedGate(nn.Module):
    """A gate and what it gates from one layer: as halves, or as torch's gated linear unit."""

    def __init__(self, width: int, inner: int, glu: bool) -> None:
        super().__init__()
        self.up, self.down, self.glu = nn.Linear(width, 2 * inner), nn.Linear(inner, width), glu

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        if self.glu:
            return self.down(F.glu(x, -1))
        gate, value = x.chunk(2, dim=-1)
        return self.down(F.silu(gate) * value)


class Mixing(nn.Module):
    """A layer over the tokens, between two transposes."""

    def __init__(self, length: int, inner: int) -> None:
        super().__init__()
        self.tokens = nn.Sequential(nn.Linear(length, inner), nn.GELU(), nn.Linear(inner, length))

    def forward(self, x: Tensor) -> Tensor:
        return self.tokens(x.transpose(1, 2)).transpose(1, 2)


class Residual(nn.Module):
    """x + scale * inner(norm(x)), norm and scale where there are any."""

    def __init__(self, inner: nn.Module, width: int, normed: bool, scaled: bool) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(width) if normed else nn.Identity(), inner
        self.scale = nn.Parameter(torch.empty(width)) if scaled else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(self.norm(x))
        return x + (y if self.scale is None else y * self.scale)


class Prepended(nn.Module):
    """A learned token in front, and learned positions."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, length + 1, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions


@st.composite
def mixer(draw: Draw, c: int) -> nn.Module:
    """A part of a transformer from c features to c features, without its shortcut."""
    heads, inner = draw(HEADS), draw(widths)
    kinds: dict[str, Callable[[], nn.Module]] = {
        "fused": lambda: FusedQkv(c, heads, inner, draw(st.booleans())),
        "separate": lambda: Separate(c, heads, inner, draw(st.booleans())),
        "einsum": lambda: Einsum(c, heads, inner, False),
        "grouped query": lambda: GroupedQuery(c, draw(st.booleans())),
        "gated": lambda: Gated(c),
        "fused gate": lambda: FusedGate(c, inner, draw(st.booleans())),
        "feed forward": lambda: FeedForward(c),
    }
    if c % heads == 0:
        kinds["classic"] = lambda: ClassicQkv(c, heads, c // heads, False)
        kinds["torch"] = lambda: SelfAttention(c, heads, draw(st.booleans()))
    return kinds[draw(st.sampled_from(sorted(kinds)))]()


@st.composite
def token_block(draw: Draw, shape: Shape) -> Made:
    """A block for `side` tokens of `channels` features, and the shape that it gives."""
    c, length = shape.channels, shape.side
    outputs, inner = draw(widths), draw(widths)
    kinds: dict[str, Callable[[], tuple[nn.Module, Shape]]] = {
        "mixing": lambda: (Mixing(length, inner), shape),
        "linear": lambda: (nn.Sequential(nn.Linear(c, outputs), nn.GELU()), shape.of(outputs)),
        "norm": lambda: (draw(st.sampled_from((nn.LayerNorm(c), nn.RMSNorm(c), nn.Softmax(-1)))), shape),
        "convolution": lambda: (across(draw(st.sampled_from(convolutions(c)))), shape),
        "prepended": lambda: (Prepended(length, c), Shape(c, length + 1)),
        "pooled": lambda: (across(nn.AdaptiveAvgPool1d(2)), Shape(c, 2)),
        "roll": lambda: (Op("roll", lambda x: x.roll(1, 1)), shape),
    }
    if c % 2 == 0:
        layer = {"d_model": c, "nhead": 2, "dim_feedforward": inner, "batch_first": True}
        norm_first = draw(st.booleans())
        kinds["encoder"] = lambda: (nn.TransformerEncoderLayer(**layer, norm_first=norm_first), shape)
    names = ["mixer"] * 8 + sorted(kinds)
    if (name := draw(st.sampled_from(names))) != "mixer":
        return kinds[name]()
    return Residual(draw(mixer(c)), c, draw(st.booleans()), draw(st.booleans())), shape


def across(inner: nn.Module) -> nn.Module:
    """Runs a module on (B, features, tokens)."""
    return Op("across", lambda x, layer: layer(x.transpose(1, 2)).transpose(1, 2), inner)


def convolutions(c: int) -> list[nn.Module]:
    return [nn.Conv1d(c, c, 3, padding=1), nn.Conv1d(c, c, 3, padding=1, groups=c), nn.BatchNorm1d(c)]


class Places(Numbered):
    """Tokens are the places of an image; the image comes back by a view."""

    def __init__(self, how: str, width: int, inner: nn.Module) -> None:
        super().__init__(how, width)
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        count, _, height, width = x.shape
        y = self.inner(x.flatten(2).transpose(1, 2)).transpose(1, 2)
        return y.reshape(count, self.count(y), height, width)


@st.composite
def attended(draw: Draw, shape: Shape) -> Made:
    """A part of a transformer over the places of an image."""
    c = shape.channels
    inner = Residual(draw(mixer(c)), c, draw(st.booleans()), draw(st.booleans()))
    return Places(draw(sources), c, inner), shape
