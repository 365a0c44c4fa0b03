"""Small networks of convolutions, written in different ways that compute the same function."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

KINDS = ("1d", "2d", "2d on its side", "3d", "same", "padded by hand", "functional")
CLASSES = 5


@dataclass(frozen=True)
class Spec:
    """What is computed: three convolutions over a signal, then a mean and a linear layer."""

    kernel: int
    dilation: int
    normalised: bool
    skip: bool
    activation: str
    groups: int = 1

    @property
    def padding(self) -> tuple[int, int]:
        """In front and behind; an odd number has one more behind."""
        total = self.dilation * (self.kernel - 1)
        return total // 2, total - total // 2


class Written(nn.Module):
    """`spec` with convolutions written as `kind` says; the input is (B, 3, T)."""

    def __init__(self, spec: Spec, kind: str) -> None:
        super().__init__()
        self.spec, self.kind = spec, kind
        self.a, self.b, self.c = self._conv(3, 8), self._conv(8, 8, spec.groups), self._conv(8, 8)
        norm = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}.get(self.dims, nn.BatchNorm1d)
        self.norm = norm(8) if spec.normalised else nn.Identity()
        self.f = nn.Linear(8, CLASSES)

    @property
    def dims(self) -> int:
        return 3 if self.kind == "3d" else 2 if self.kind.startswith("2d") else 1

    def _along(self, value: int, other: int) -> tuple[int, ...]:
        """A number for each dimension: the signal lies along the last, or along the first where it is on its side."""
        rest = (other,) * (self.dims - 1)
        return (value, *rest) if self.kind == "2d on its side" else (*rest, value)

    def _conv(self, inputs: int, outputs: int, groups: int = 1) -> nn.Module:
        spec = self.spec
        padding = {"same": "same", "padded by hand": "valid"}.get(self.kind, self._along(spec.padding[0], 0))
        kernel, dilation = self._along(spec.kernel, 1), self._along(spec.dilation, 1)
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[self.dims - 1]
        return conv(inputs, outputs, kernel, padding=padding, dilation=dilation, groups=groups)

    def _run(self, conv: nn.Module, x: Tensor) -> Tensor:
        if self.kind == "padded by hand":
            x = F.pad(x, self.spec.padding)
        if self.kind == "functional":
            return F.conv1d(x, conv.weight, conv.bias, 1, conv.padding, conv.dilation, conv.groups)
        return conv(x)

    def _active(self, x: Tensor) -> Tensor:
        if self.spec.activation == "relu" and self.kind == "functional":
            return x.clamp(min=0)
        return getattr(F, self.spec.activation)(x)

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(-1, 3, *self._along(x.shape[2], 1))
        stream = self._active(self._run(self.a, x))
        inner = self._active(self.norm(self._run(self.b, stream)))
        found = self._run(self.c, inner)
        found = self._active(found + stream if self.spec.skip else found)
        return self.f(found.flatten(2).mean(2))


def twin(model: nn.Module, other: nn.Module) -> nn.Module:
    """`other` with the numbers of `model`, in evaluation mode."""
    own = other.state_dict()
    other.load_state_dict({name: value.reshape(own[name].shape) for name, value in model.state_dict().items()})
    return other.eval()


class ZeroInserted(nn.Module):
    """A transposed convolution over a signal written as a convolution over it with zeros between its values."""

    def __init__(self, like: nn.ConvTranspose1d) -> None:
        super().__init__()
        (self.stride,), (self.dilation,), self.groups = like.stride, like.dilation, like.groups
        reach = self.dilation * (like.kernel_size[0] - 1) - like.padding[0]
        self.around = (reach, reach + like.output_padding[0])
        inner = like.weight.detach().unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1)
        self.weight = nn.Parameter(inner.flip(2).clone())
        self.bias = nn.Parameter(like.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        spread = F.pad(x[..., None], (0, self.stride - 1)).flatten(2)
        spread = spread[..., : (x.shape[2] - 1) * self.stride + 1]
        return F.conv1d(F.pad(spread, self.around), self.weight, self.bias, 1, 0, self.dilation, self.groups)
