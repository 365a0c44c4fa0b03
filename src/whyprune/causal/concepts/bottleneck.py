"""Bottlenecks: a layer that reads few codes instead of all channels. Low-rank compression, its codes chosen causally.

[I] With codes c = E a + b and a decoder without bias, a convolution W that reads D c is the convolution W D over the
codes: the pair (1x1 convolution E, convolution W D) replaces it, and nothing else changes. It is exactly the network
whose reader sees D c (padded borders included, for D 0 = 0), with MACs C K + K O k² for C O k² per place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init as _skip_init

from whyprune.causal.concepts.autoencoder import Autoencoder, Layer, layers
from whyprune.errors import InputError, VerificationError
from whyprune.structure.capture import module_path
from whyprune.structure.copies import duplicate
from whyprune.structure.network import Network, Reader
from whyprune.structure.operations import bind, name_of, sizes
from whyprune.structure.replay import Replay
from whyprune.structure.state import State

TOLERANCE = 1e-4
skip_init: Callable[..., nn.Module] = _skip_init  # no initial values are drawn: torch's generator is left alone


@dataclass(frozen=True)
class Bottleneck:
    """A smaller network, and what it costs.

    Attributes:
        model: a copy of the user's model in which each layer that read the group is a pair: encoder, layer.
        codes: the codes that it keeps.
        macs, dense_macs: multiply-accumulates for one sample.
        params, dense_params: number of parameters.
    """

    model: nn.Module
    codes: tuple[int, ...]
    macs: int
    dense_macs: int
    params: int
    dense_params: int

    def __repr__(self) -> str:
        saved = 1 - self.macs / self.dense_macs
        return f"Bottleneck({len(self.codes)} codes, {saved:.1%} fewer MACs: {self.macs} of {self.dense_macs})"


def layer_of(start: Network | State, group: str) -> Layer:
    """The one tensor in which a group's units are read.

    Raises:
        InputError: the group is read in several tensors, or in none.
    """
    state = State.of(start)
    labels = {unit.label for unit in state.network.group(group).units}
    found = [la for la in layers(Replay.of(state)) if any(labels & set(r.labels.tolist()) for r in la.readers)]
    if len(found) != 1:
        raise InputError(
            f"group {group!r} is read in {len(found)} tensors: a bottleneck needs one (a residual stream has more)"
        )
    return found[0]


def bottleneck(
    network: Network, group: str, autoencoder: Autoencoder, codes: Sequence[int] | None = None
) -> Bottleneck:
    """Puts a bottleneck in front of every layer that reads a group.

    Args:
        network: a traced model; it is not changed.
        group: a group whose units are read in one tensor only, by convolutions or linear layers.
        autoencoder: of that tensor.
        codes: which codes to keep (default: all).

    Raises:
        InputError: the group's readers cannot be replaced, or the codes do not exist.
        VerificationError: the model's own code does not run the replaced layers as they were traced.
    """
    layer = layer_of(network, group)
    kept = tuple(range(len(autoencoder.bias)) if codes is None else sorted(set(codes)))
    if not kept or not 0 <= min(kept) <= max(kept) < len(autoencoder.bias):
        raise InputError(f"codes {list(kept)} of {len(autoencoder.bias)}: give at least one that exists")
    chosen = torch.tensor(kept)
    few = Autoencoder(autoencoder.encoder[chosen], autoencoder.bias[chosen], autoencoder.decoder[:, chosen])
    model = duplicate(network.model)
    for reader in layer.readers:
        path = _module(network, reader, few)
        _replace(model, path, _pair(model.get_submodule(path), few))
    _verify(network, layer, few, model)
    return Bottleneck(
        model=model,
        codes=kept,
        macs=_macs(network, layer, len(kept)),
        dense_macs=network.cost().macs,
        params=sum(p.numel() for p in model.parameters()),
        dense_params=sum(p.numel() for p in network.model.parameters()),
    )


def _module(network: Network, reader: Reader, model: Autoencoder) -> str:
    """The path of the module that is a reader, if it can be replaced."""
    path = module_path(reader.node)
    module = network.model.get_submodule(path)
    width = getattr(module, "in_channels", getattr(module, "in_features", None))
    plain = (
        (type(module) is nn.Conv2d and name_of(reader.node) == "conv2d" and module.groups == 1)
        and module.padding_mode == "zeros"
    ) or (type(module) is nn.Linear and name_of(reader.node) == "linear")
    if not plain or width != model.encoder.shape[1] or len(bind(reader.node)["weight"].users) != 1:
        raise InputError(
            f"{path or 'the model'} reads the group and is no Conv2d or Linear over all of its channels, used once: "
            "no bottleneck fits in front of it"
        )
    return path


def _pair(module: nn.Module, model: Autoencoder) -> nn.Sequential:
    """Encoder, and the layer over codes."""
    codes, channels = model.encoder.shape
    assert isinstance(module, nn.Conv2d | nn.Linear)
    about = {"device": module.weight.device, "dtype": module.weight.dtype}
    if isinstance(module, nn.Conv2d):
        first: nn.Module = skip_init(nn.Conv2d, channels, codes, 1, **about)
        second: nn.Module = skip_init(
            nn.Conv2d,
            codes,
            module.out_channels,
            module.kernel_size,
            module.stride,
            module.padding,
            module.dilation,
            bias=module.bias is not None,
            **about,
        )
    else:
        first = skip_init(nn.Linear, channels, codes, **about)
        second = skip_init(nn.Linear, codes, module.out_features, bias=module.bias is not None, **about)
    with torch.no_grad():
        _set(first, model.encoder, model.bias)
        _set(second, torch.einsum("oc...,ck->ok...", module.weight, model.decoder.to(module.weight)), module.bias)
    return nn.Sequential(first, second).train(module.training)


def _set(module: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    assert isinstance(module, nn.Conv2d | nn.Linear)
    module.weight.copy_(weight.reshape(module.weight.shape))
    if bias is not None and module.bias is not None:
        module.bias.copy_(bias)


def _replace(model: nn.Module, path: str, new: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, new)


def _macs(network: Network, layer: Layer, codes: int) -> int:
    dense, total = network.cost.by_operation(), network.cost().macs
    channels = len(layer.readers[0].labels)
    encoder = codes
    for size in sizes(layer.data):
        encoder *= size
    encoder //= network.graph.batch_size or 1
    for reader in layer.readers:
        own = dense[reader.node.name]
        total += encoder + own // channels * codes - own
    return total


def _verify(network: Network, layer: Layer, few: Autoencoder, model: nn.Module) -> None:
    """The new module gives, on the example inputs, what the network gives when readers see D E a."""
    replay, steps = Replay(network), list(layer.steps)
    values = replay.before(network.example, steps)
    expected = replay.resume(values, steps, layer.edits(lambda value: few.rebuilt(value, layer.dim)))
    with torch.inference_mode():
        found = _output(network, model)
    away = float((found - expected).abs().max())
    if away > TOLERANCE * max(1.0, float(expected.abs().max())):
        raise VerificationError(
            f"the network with a bottleneck differs from the original with decoded codes by {away:.3g}: its code "
            "does not run the replaced layers as they were traced"
        )


def _output(network: Network, model: nn.Module) -> Tensor:
    """The rows of another model on the network's example inputs."""
    was = model.training
    found = network.outputs.rows_of(network.example.call(model.eval()))
    model.train(was)
    return found
