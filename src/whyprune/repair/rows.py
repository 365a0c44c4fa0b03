"""The rows of a layer's least-squares problem: what it sees and what it should give, at sampled output places."""

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from whyprune.structure.operations import bind, name_of, shape_of

ROWS_PER_FEATURE = 170
MAX_BYTES = 384 * 2**20


@dataclass(frozen=True)
class Layout:
    """How one affine operation turns its input into rows.

    Attributes:
        kernel, stride, padding, dilation: of a 2-d convolution; None for a linear layer.
    """

    kernel: tuple[int, int] | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    def features(self, data: Tensor, places: Tensor) -> Tensor:
        """Rows (images x places, D); D is in the order of the flattened weight."""
        if self.kernel is None:
            return data.reshape(-1, data.shape[-1])
        width = self._out_width(data)
        dy = torch.arange(self.kernel[0]).repeat_interleave(self.kernel[1]) * self.dilation[0]
        dx = torch.arange(self.kernel[1]).repeat(self.kernel[0]) * self.dilation[1]
        top = ((places // width) * self.stride[0] - self.padding[0])[:, None] + dy
        left = ((places % width) * self.stride[1] - self.padding[1])[:, None] + dx
        height, breadth = data.shape[2:]
        inside = (top >= 0) & (top < height) & (left >= 0) & (left < breadth)
        # outside the image there are zeros: taken from anywhere and multiplied away, which saves padding all of it
        taken = data[:, :, top.clamp(0, height - 1), left.clamp(0, breadth - 1)] * inside
        return taken.permute(0, 2, 1, 3).reshape(-1, data.shape[1] * len(dy))

    def values(self, output: Tensor, places: Tensor) -> Tensor:
        """The output at the same places: rows (images x places, O)."""
        if self.kernel is None:
            return output.reshape(-1, output.shape[-1])
        return output.flatten(2)[:, :, places].permute(0, 2, 1).reshape(-1, output.shape[1])

    def _out_width(self, data: Tensor) -> int:
        assert self.kernel is not None
        reach = self.dilation[1] * (self.kernel[1] - 1) + 1
        return int((data.shape[3] + 2 * self.padding[1] - reach) // self.stride[1] + 1)


def layout(node: fx.Node) -> Layout | None:
    """The layout of an operation that can be refitted; None for any other.

    Refitted are linear layers and 2-d convolutions over all channels whose weight belongs to them alone.
    """
    name, bound = name_of(node), bind(node)
    if name not in ("linear", "conv2d") or len(bound["weight"].users) != 1 or bound["weight"].op != "placeholder":
        return None
    if name == "linear":
        return Layout()
    if bound["groups"] != 1 or isinstance(bound["padding"], str):
        return None
    shape = shape_of(bound["weight"])
    pair = [tuple(int(v) for v in bound[key]) for key in ("stride", "padding", "dilation")]
    stride, padding, dilation = [(p[0], p[-1]) for p in pair]
    return Layout((int(shape[2]), int(shape[3])), stride, padding, dilation)


def sample_places(
    node: fx.Node, features: int, images: int, generator: torch.Generator, output: Tensor | None = None
) -> Tensor:
    """Places of one batch's output (default: as traced) to look at in every image: enough rows, within memory."""
    shape = shape_of(node) if output is None else output.shape
    total = int(shape[2]) * int(shape[3]) if name_of(node) == "conv2d" else 1
    wanted = -(-ROWS_PER_FEATURE * features // images)
    affordable = max(1, MAX_BYTES // (4 * features * images))
    count = max(1, min(total, wanted, affordable))
    return torch.randperm(total, generator=generator)[:count].sort().values
