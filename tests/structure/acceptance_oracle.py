"""The oracle: the original at full size, with removed channels taken out where layers read them.

It knows neither `masked` nor which slices a unit couples: what arrives where is written by hand for each network,
and checked by shifting every channel.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whyprune.structure.units import Unit

Indices = Callable[[int], Iterable[int]]


def same(index: int) -> tuple[int]:
    return (index,)


@dataclass(frozen=True)
class Read:
    """Hand-written truth: channel i of `writer` arrives at the channels `to(i)` of `reader`.

    The writer is a layer with a bias; "" stands for a bias of the network itself.
    """

    writer: str
    reader: str
    to: Indices = same
    dim: int = 1

    @property
    def bias(self) -> str:
        """The parameter that has one number per channel of the writer."""
        return f"{self.writer}.bias".lstrip(".")


def run(model: nn.Module, inputs: Any) -> Any:
    with torch.no_grad():
        if isinstance(inputs, dict):
            return model(**inputs)
        return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def under_do(model: nn.Module, units: Iterable[Unit], reads: Iterable[Read]) -> nn.Module:
    """The original under do(units := 0), by hooks, from what the units cut off the writers' biases alone.

    Normalisation over channels is computed over those that stay.
    """
    twin, slices = copy.deepcopy(model), [s for u in units for s in u.slices]
    gone: dict[tuple[str, int], set[int]] = defaultdict(set)
    for read in reads:
        cut = {i for s in slices if (s.parameter, s.axis) == (read.bias, 0) for i in s.indices}
        gone[read.reader, read.dim].update(c for i in cut for c in read.to(i))
    for (reader, dim), channels in gone.items():
        module = twin.get_submodule(reader)
        if isinstance(module, nn.LayerNorm | nn.GroupNorm):
            module.register_forward_hook(_normalising(channels))
        else:
            module.register_forward_pre_hook(_zeroing(channels, dim))
    return twin


def _zeroing(channels: set[int], dim: int) -> Callable[..., Any]:
    def hook(module: nn.Module, args: Any) -> Any:
        return args[0].index_fill(dim, torch.tensor(sorted(channels), dtype=torch.long), 0)

    return hook


def _normalising(gone: set[int]) -> Callable[..., Any]:
    def hook(module: Any, args: Any, output: Tensor) -> Tensor:
        x, out, eps = args[0], torch.zeros_like(output), module.eps
        if isinstance(module, nn.LayerNorm):
            keep = [c for c in range(x.shape[-1]) if c not in gone]
            out[..., keep] = F.layer_norm(x[..., keep], (len(keep),), module.weight[keep], module.bias[keep], eps)
            return out
        for row in torch.arange(x.shape[1]).view(module.num_groups, -1).tolist():
            if keep := [c for c in row if c not in gone]:
                out[:, keep] = F.group_norm(x[:, keep], 1, module.weight[keep], module.bias[keep], eps)
        return out

    return hook


def assert_true(model: nn.Module, reads: Iterable[Read], inputs: Any) -> None:
    """A channel that is shifted shows at every place where the truth says that it is read."""
    for read in reads:
        bias = model.get_parameter(read.bias)
        before = _seen(model, read.reader, inputs)
        for index in range(len(bias)):
            changed: set[int] = set()
            value = bias[index].item()
            for shift in (1.0, 5.0, -1.0, -5.0):  # one of them passes every activation
                bias.data[index] = value + shift
                changed |= _differing(before, _seen(model, read.reader, inputs), read.dim)
            bias.data[index] = value
            assert set(read.to(index)) <= changed, (read.writer, read.reader, index)


def _seen(model: nn.Module, reader: str, inputs: Any) -> list[Tensor]:
    found: list[Tensor] = []
    handle = model.get_submodule(reader).register_forward_pre_hook(lambda _, args: found.append(args[0]))
    run(model, inputs)
    handle.remove()
    return found


def _differing(left: Sequence[Tensor], right: Sequence[Tensor], dim: int) -> set[int]:
    pairs = zip(left, right, strict=True)
    return {
        i
        for one, other in pairs
        for i in (one != other).transpose(0, dim).flatten(1).any(1).nonzero().flatten().tolist()
    }
