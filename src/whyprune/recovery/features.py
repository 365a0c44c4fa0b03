"""Following the dense network inside: what a layer reads should be what the same layer of the dense network reads.

FitNets (Romero et al., ICLR 2015) lead a student by its teacher's features through a learnt map, because the two have
other channels. After pruning no map is needed: every channel that is left is one of the dense network's [I].
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from whyprune.errors import InputError
from whyprune.structure.capture import module_path
from whyprune.structure.state import State

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class MatchedLayer:
    """A layer that both networks have.

    Attributes:
        module: its dotted path, the same in both.
        dim: along which dimension of its input channels lie.
        kept: (channels,), the channels of the dense network's input that the pruned network's input still has.
    """

    module: str
    dim: int
    kept: Tensor


def matched_layers(state: State) -> tuple[MatchedLayer, ...]:
    """The convolutions and linear layers, called once per forward pass, that read channels of which some can go."""
    bypassed = state.network.bypassed(state.removed)
    network, gone = state.network.without_readers_in(bypassed), [unit.label for unit in state.removed]
    paths = Counter(module_path(r.node) for r in network.readers if r.affine)
    found = []
    for reader in network.readers:
        path = module_path(reader.node)
        if reader.affine and paths[path] == 1 and isinstance(network.model.get_submodule(path), LAYERS):
            kept = torch.from_numpy(np.flatnonzero(~np.isin(reader.labels, gone)))
            found.append(MatchedLayer(path, reader.dim, kept))
    return tuple(found)


@dataclass
class Tap:
    """Keeps what layers of a network read in its last forward pass."""

    network: nn.Module
    layers: Sequence[MatchedLayer]
    seen: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        modules = dict(self.network.named_modules())
        for layer in self.layers:
            if layer.module not in modules:
                raise InputError(f"the network has no layer {layer.module!r}: it is not the one that was pruned")
            modules[layer.module].register_forward_pre_hook(self._keep(layer.module))

    def _keep(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            self.seen[name] = args[0]

        return hook


def feature_loss(pruned: Tap, dense: Tap) -> Tensor:
    """Mean over layers of the squared distance of kept channels to the dense network's, over the variance of those."""
    losses = []
    for layer in pruned.layers:
        ours, theirs = pruned.seen[layer.module].float(), dense.seen[layer.module].float()
        aim = theirs.index_select(layer.dim, layer.kept.to(theirs.device))
        losses.append((ours - aim).square().mean() / aim.var().clamp_min(1e-6))
    return torch.stack(losses).mean()
