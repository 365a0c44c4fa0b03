"""Further networks: channels that are normalised, weighed or averaged over one another."""

import torch
import torch.nn.functional as F
from acceptance_convolutions import conv
from acceptance_property import Case
from torch import Tensor, nn
from wide_channels import EITHER, between


class EfficientAttention(nn.Module):
    """A convolution over the channels, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.mean((2, 3)).unsqueeze(1)).squeeze(1)
        return x * torch.sigmoid(y)[:, :, None, None]


class SpatialAttention(nn.Module):
    """The mean and the largest of all channels weigh the places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.cat([x.mean(dim=1, keepdim=True), x.max(dim=1, keepdim=True)[0]], dim=1)
        return x * torch.sigmoid(self.conv(maps))


class ChannelAttention(nn.Module):
    """Channels attend to channels by a matrix product over places."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        weights = torch.softmax(torch.bmm(flat, flat.transpose(1, 2)) / flat.shape[-1], dim=-1)
        return x + torch.bmm(weights, flat).view_as(x)


class ResponseNorm(nn.Module):
    """Global response normalisation: every channel's norm over the mean of all norms."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.empty(1, 6, 1, 1)), nn.Parameter(torch.empty(1, 6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        size = x.pow(2).sum(dim=(2, 3), keepdim=True).sqrt()
        return self.gamma * x * (size / (size.mean(dim=1, keepdim=True) + 1e-6)) + self.beta + x


class NormByHand(nn.Module):
    """Layer normalisation of channels, written out."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(6)), nn.Parameter(torch.empty(6))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


WIDE_STATISTICS: dict[str, Case] = {
    "channel attention": between(ChannelAttention, 0, build=True, **EITHER),
    "efficient channel attention": between(EfficientAttention, 0, build=True, kept=("one",)),
    "spatial attention": between(SpatialAttention, 0, build=True, **EITHER),
    "response norm": between(ResponseNorm, 0, build=True, **EITHER),
    "norm by hand": between(NormByHand, 0, build=True, **EITHER),
    "softmax over channels": between(lambda x: x * torch.softmax(x, dim=1), 0, **EITHER),
    "mean over channels": between(lambda x: x - x.mean(dim=1, keepdim=True), 0, **EITHER),
    "unit length over channels": between(lambda x: F.normalize(x, dim=1), 0, **EITHER),
}
