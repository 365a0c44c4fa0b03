"""Further networks with tokens: attention in the ways people write it, mixers, windows and patch merging."""

import torch
import torch.nn.functional as F
from acceptance_attention import FeedForward
from acceptance_oracle import Read
from acceptance_property import Case, image, tokens
from networks import CLASSES
from torch import Tensor, nn


class Block(nn.Module):
    """Tokens of `width` features, normalised, through `mixer` and a feed-forward part, both residual."""

    def __init__(self, mixer: nn.Module, width: int) -> None:
        super().__init__()
        self.embed, self.norm, self.mixer = nn.Linear(5, width), nn.LayerNorm(width), mixer
        self.ff, self.head = FeedForward(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = self.ff(x + self.mixer(self.norm(x)))
        return self.head(x.mean(dim=1))


class FusedQkv(nn.Module):
    """One linear layer for queries, keys and values; `indexed` unpacks by index, else by unbind."""

    def __init__(self, width: int, heads: int, head_dim: int, indexed: bool) -> None:
        super().__init__()
        self.heads, self.head_dim, self.scale, self.indexed = heads, head_dim, head_dim**-0.5, indexed
        self.qkv, self.proj = nn.Linear(width, 3 * heads * head_dim), nn.Linear(heads * head_dim, width)

    def forward(self, x: Tensor) -> Tensor:
        count, length, _ = x.shape
        qkv = self.qkv(x).view(count, length, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = (qkv[0], qkv[1], qkv[2]) if self.indexed else qkv.unbind(0)
        weights = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class ClassicQkv(FusedQkv):
    """The head's width is computed from the stream's, so that the two hang together."""

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        weights = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(B, N, C))


class Separate(nn.Module):
    """Queries, keys and values by three layers, as transformers writes it."""

    def __init__(self, width: int, heads: int, head_dim: int, fused: bool) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.all_head_size, self.fused = heads, head_dim, heads * head_dim, fused
        self.query, self.key, self.value = (nn.Linear(width, heads * head_dim) for _ in range(3))
        self.proj = nn.Linear(heads * head_dim, width)

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), x.size(1), self.num_heads, self.head_dim).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = torch.matmul(F.softmax(torch.matmul(q, k.transpose(-1, -2)) / self.head_dim**0.5, dim=-1), v)
        mixed = mixed.permute(0, 2, 1, 3).contiguous()
        return self.proj(mixed.view(x.size(0), x.size(1), self.all_head_size))


class GroupedQuery(nn.Module):
    """Four heads of queries share two of keys and values."""

    def __init__(self, width: int, expand: bool) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim, self.expand = 4, 2, 3, expand
        self.q, self.k, self.v = nn.Linear(width, 12), nn.Linear(width, 6), nn.Linear(width, 6)
        self.proj = nn.Linear(12, width)

    def repeated(self, x: Tensor) -> Tensor:
        count, heads, length, head_dim = x.shape
        if self.expand:
            x = x[:, :, None, :, :].expand(count, heads, 2, length, head_dim)
            return x.reshape(count, heads * 2, length, head_dim)
        return x.repeat_interleave(2, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        count, length, _ = x.shape
        q = self.q(x).view(count, length, self.heads, self.head_dim).transpose(1, 2)
        k = self.k(x).view(count, length, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v(x).view(count, length, self.kv_heads, self.head_dim).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, self.repeated(k), self.repeated(v))
        return self.proj(mixed.transpose(1, 2).reshape(count, length, -1))


class Gated(nn.Module):
    """SwiGLU with RMS normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.gate, self.up = nn.RMSNorm(width), nn.Linear(width, 7), nn.Linear(width, 7)
        self.down = nn.Linear(7, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.down(F.silu(self.gate(x)) * self.up(x))


class ViT(nn.Module):
    """Patches, a class token, learned positions, one block."""

    def __init__(self, mixer: nn.Module, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, 5, width))
        self.norm, self.mixer, self.ff = nn.LayerNorm(width), mixer, FeedForward(width)
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        x = self.ff(x + self.mixer(self.norm(x)))
        return self.head(self.last(x)[:, 0])


class EncoderLayer(nn.Module):
    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(5, 8), nn.Linear(8, CLASSES)
        self.layer = nn.TransformerEncoderLayer(8, 2, 10, batch_first=True, norm_first=norm_first)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x)).mean(1))


class Mixer(nn.Module):
    """MLP-Mixer: a layer over tokens between two transposes, then one over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm1, self.norm2 = nn.Conv2d(3, 6, 2, stride=2), nn.LayerNorm(6), nn.LayerNorm(6)
        self.tokens = nn.Sequential(nn.Linear(16, 7), nn.GELU(), nn.Linear(7, 16))
        self.channels = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 6))
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return self.head((x + self.channels(self.norm2(x))).mean(1))


class PatchMerging(nn.Module):
    """Swin's: every second place four times, joined, normalised and reduced."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 6, 2, stride=2), nn.LayerNorm(24)
        self.reduction, self.hidden, self.head = nn.Linear(24, 8, bias=False), nn.Linear(8, 7), nn.Linear(7, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        parts = [x[:, 0::2, 0::2, :], x[:, 1::2, 0::2, :], x[:, 0::2, 1::2, :], x[:, 1::2, 1::2, :]]
        x = self.reduction(self.norm(torch.cat(parts, -1)))
        return self.head(F.relu(self.hidden(x)).mean(dim=(1, 2)))


class Windows(nn.Module):
    """Attention within windows of 2x2 places, cut out and put back by views."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.window, self.shift = 2, shift
        self.stem, self.mixer, self.head = nn.Conv2d(3, 6, 2, stride=2), Separate(6, 3, 4, True), nn.Linear(6, CLASSES)
        self.hidden, self.back = nn.Linear(6, 9), nn.Linear(9, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        count, height, width, channels = x.shape
        size = self.window
        y = torch.roll(x, shifts=(-self.shift, -self.shift), dims=(1, 2)) if self.shift else x
        y = y.view(count, height // size, size, width // size, size, channels).permute(0, 1, 3, 2, 4, 5)
        y = self.mixer(y.contiguous().view(-1, size * size, channels))
        y = y.view(-1, height // size, width // size, size, size, channels).permute(0, 1, 3, 2, 4, 5)
        y = y.contiguous().view(count, height, width, channels)
        y = torch.roll(y, shifts=(self.shift, self.shift), dims=(1, 2)) if self.shift else y
        x = x + y
        return self.head((x + self.back(F.gelu(self.hidden(x)))).mean(dim=(1, 2)))


FF = {"ff.wide": 9}

WIDE_ATTENTION: dict[str, Case] = {
    "fused qkv, indexed": Case(
        lambda: Block(FusedQkv(6, 3, 4, True), 6), tokens, {**FF, "mixer.qkv": 3, "embed": 6}, marked=("embed",)
    ),
    "fused qkv, unbound": Case(
        lambda: Block(FusedQkv(6, 3, 4, False), 6), tokens, {**FF, "mixer.qkv": 3, "embed": 6}, marked=("embed",)
    ),
    "fused qkv, classic": Case(
        lambda: Block(ClassicQkv(12, 3, 4, False), 12), tokens, {**FF, "mixer.qkv": 3, "embed": 3}, marked=("embed",)
    ),
    "fused qkv, classic, one head": Case(
        lambda: Block(ClassicQkv(6, 1, 6, False), 6), tokens, {**FF, "mixer.qkv": 6, "embed": 6}, marked=("embed",)
    ),
    "separate qkv": Case(
        lambda: Block(Separate(6, 3, 4, False), 6),
        tokens,
        {**FF, "mixer.value": 3, "embed": 6},
        either=("mixer.query",),
    ),
    "separate qkv, sdpa": Case(
        lambda: Block(Separate(6, 3, 4, True), 6), tokens, {**FF, "mixer.value": 3, "embed": 6}, either=("mixer.key",)
    ),
    "grouped query, repeated": Case(
        lambda: Block(GroupedQuery(6, False), 6), tokens, {**FF, "mixer.v": 2, "embed": 6}, either=("mixer.q",)
    ),
    "grouped query, expanded": Case(
        lambda: Block(GroupedQuery(6, True), 6), tokens, {**FF, "mixer.v": 2, "embed": 6}, either=("mixer.q",)
    ),
    "swiglu and rms norm": Case(
        lambda: Block(Gated(6), 6), tokens, {**FF, "mixer.gate": 7, "embed": 6}, marked=("embed",)
    ),
    "vit, fused qkv": Case(
        lambda: ViT(FusedQkv(6, 3, 4, False), 6), image, {**FF, "mixer.qkv": 3, "patches": 6}, marked=("patches",)
    ),
    "vit, sdpa": Case(
        lambda: ViT(Separate(6, 3, 4, True), 6), image, {**FF, "mixer.value": 3, "patches": 6}, marked=("patches",)
    ),
    "encoder layer, norm last": Case(
        lambda: EncoderLayer(False), tokens, {"layer.linear1": 10}, either=("layer.self_attn.in_proj_weight",)
    ),
    "encoder layer, norm first": Case(
        lambda: EncoderLayer(True), tokens, {"layer.linear1": 10}, either=("layer.self_attn.in_proj_weight",)
    ),
    "mlp mixer": Case(
        Mixer, image, {"patches": 6, "tokens.0": 7, "channels.0": 9}, kept=("tokens.2",), marked=("patches",)
    ),
    "patch merging": Case(
        PatchMerging,
        image,
        {"patches": 6, "reduction": 8, "hidden": 7},
        marked=("patches",),
        reads=(
            Read("patches", "norm", lambda i: range(i, 24, 6), -1),
            Read("patches", "reduction", lambda i: range(i, 24, 6), -1),
            Read("hidden", "head", dim=-1),
        ),
    ),
    "windows": Case(lambda: Windows(0), image, {"stem": 6, "mixer.value": 3, "hidden": 9}),
    "shifted windows": Case(lambda: Windows(1), image, {"stem": 6, "mixer.value": 3, "hidden": 9}),
}
