"""The 26 small networks that every structural pruner should get right, and what must be removable in each."""

from acceptance_attention import HEADS, EinsumAttention, LayerNormed, MultiheadAttention
from acceptance_convolutions import (
    Branching,
    ChannelPad,
    ChannelShuffle,
    Concat,
    Flattened,
    Functional,
    Gated,
    Grouped,
    GroupNormed,
    LayerScale,
    PixelShuffle,
    Repeat,
    Residual,
    Shared,
    SliceConcat,
    SqueezeExcite,
    StackSum,
    StridedMax,
    Transposed,
    Unused,
)
from acceptance_oracle import Read
from acceptance_property import Case, bright_image, image, tokens

HEAD = Read("last", "head")
RESIDUAL = (Read("stem", "first"), Read("stem", "head"), Read("first", "second"))

CONVOLUTIONS: dict[str, Case] = {
    "residual": Case(Residual, image, {"stem": 6, "first": 5}, reads=RESIDUAL),
    "concat": Case(
        Concat,
        image,
        {"left": 4, "right": 6, "last": 5},
        reads=(Read("left", "last"), Read("right", "last", lambda i: (i + 4,)), HEAD),
    ),
    "chunk glu": Case(
        lambda: Gated(False),
        image,
        {"gate": 6, "last": 5},
        {"gate": 2},
        reads=(Read("gate", "last", lambda i: (i % 6,)), HEAD),
    ),
    "grouped": Case(
        lambda: Grouped(8, 12, 2),
        image,
        {"stem": 4, "grouped": 6, "last": 5},
        reads=(Read("stem", "grouped"), Read("grouped", "last"), HEAD),
    ),
    "depthwise": Case(
        lambda: Grouped(6, 6, 6),
        image,
        {"stem": 6, "grouped": 6, "last": 5},
        {"grouped": 1},
        reads=(Read("stem", "grouped"), Read("grouped", "last"), HEAD),
    ),
    "shared": Case(Shared, image, {"stem": 6, "last": 5}, reads=(Read("stem", "shared"), Read("shared", "last"), HEAD)),
    "flatten": Case(
        Flattened,
        image,
        {"stem": 6, "hidden": 7},
        reads=(Read("stem", "hidden", lambda i: range(16 * i, 16 * i + 16)), Read("hidden", "head")),
    ),
    "squeeze excite": Case(
        SqueezeExcite,
        image,
        {"stem": 6, "squeeze": 3, "last": 5},
        reads=(Read("stem", "squeeze"), Read("stem", "last"), Read("squeeze", "excite"), HEAD),
    ),
    "layer scale": Case(
        LayerScale,
        image,
        {"stem": 6, "inner": 8},
        reads=(Read("stem", "inner"), Read("stem", "head"), Read("inner", "back")),
    ),
    "stack sum": Case(StackSum, image, {"left": 6, "right": 6, "last": 5}, reads=(Read("left", "last"), HEAD)),
    "transposed": Case(
        Transposed, image, {"stem": 6, "up": 4, "last": 5}, reads=(Read("stem", "up"), Read("up", "last"), HEAD)
    ),
    "strided max": Case(
        StridedMax, image, {"stem": 4, "last": 5}, {"stem": 2}, reads=(Read("stem", "last", lambda i: (i // 2,)), HEAD)
    ),
    "unused": Case(Unused, image, {"stem": 6, "first": 5}, reads=RESIDUAL),
    "branch": Case(Branching, bright_image, {"stem": 6, "first": 5}, reads=RESIDUAL),
    "glu": Case(
        lambda: Gated(True),
        image,
        {"gate": 6, "last": 5},
        {"gate": 2},
        reads=(Read("gate", "last", lambda i: (i % 6,)), HEAD),
    ),
    "depth multiplier": Case(
        lambda: Grouped(4, 8, 4),
        image,
        {"stem": 4, "grouped": 4, "last": 5},
        {"stem": 1, "grouped": 2},
        reads=(Read("stem", "grouped"), Read("grouped", "last"), HEAD),
    ),
    "pixel shuffle": Case(
        PixelShuffle,
        image,
        {"stem": 6, "wide": 4, "last": 5},
        {"wide": 4},
        reads=(Read("stem", "wide"), Read("wide", "last", lambda i: (i // 4,)), HEAD),
    ),
    "channel pad": Case(
        ChannelPad,
        image,
        {"stem": 6, "first": 5},
        reads=(
            Read("stem", "first"),
            Read("stem", "head", lambda i: (i + 2,)),
            Read("first", "second"),
            Read("second", "head"),
        ),
    ),
    "slice concat": Case(
        SliceConcat,
        image,
        {"stem": 8, "partial": 4, "last": 5},
        reads=(
            Read("stem", "partial", lambda i: (i,) if i < 3 else ()),
            Read("stem", "last", lambda i: (i + 1,) if i >= 3 else ()),
            Read("partial", "last"),
            HEAD,
        ),
    ),
    "functional": Case(
        Functional, image, {"stem": 6, "kernel": 7, "last": 5}, reads=(Read("stem", "seen"), Read("", "last"), HEAD)
    ),
    "repeat": Case(Repeat, image, {"stem": 6, "last": 5}, reads=(Read("stem", "last", lambda i: (i, i + 6)), HEAD)),
    "channel shuffle": Case(
        ChannelShuffle,
        image,
        {"stem": 4, "last": 5},
        {"stem": 2},
        reads=(Read("stem", "last", lambda i: (2 * (i % 4) + i // 4,)), HEAD),
    ),
    "group norm": Case(
        GroupNormed,
        image,
        {"stem": 4, "last": 5},
        marked=("stem",),
        reads=(Read("stem", "norm"), Read("stem", "last"), HEAD),
    ),
}

EMBED = ("q", "k", "v", "ff.wide")

ATTENTION: dict[str, Case] = {
    "einsum attention": Case(
        EinsumAttention,
        tokens,
        {"embed": 6, "v": HEADS, "q": HEADS, "k": HEADS, "ff.wide": 9},
        reads=(
            *(Read("embed", reader, dim=-1) for reader in (*EMBED, "head")),
            Read("q", "q_tap", dim=-1),
            Read("k", "k_tap", dim=-1),
            Read("v", "proj", dim=-1),
            Read("ff.wide", "ff.back", dim=-1),
        ),
    ),
    "multihead attention": Case(
        MultiheadAttention, tokens, {"ff.wide": 9}, either=("attention.in_proj_weight", "embed")
    ),
    "layer norm": Case(
        LayerNormed,
        tokens,
        {"embed": 6, "wide": 9},
        marked=("embed",),
        reads=(
            Read("embed", "norm", dim=-1),
            Read("embed", "wide", dim=-1),
            Read("embed", "head", dim=-1),
            Read("wide", "last", dim=-1),
        ),
    ),
}

ACCEPTANCE: dict[str, Case] = {**CONVOLUTIONS, **ATTENTION}
