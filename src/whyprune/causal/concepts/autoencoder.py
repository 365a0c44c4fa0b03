"""A layer's autoencoder: every activation as few linear codes, from which the readers of the layer can go on.

Harradon, Druce & Ruttenberg (2018, arXiv 1802.00541) train autoencoders layer by layer with a shallow loss
(activations), a deep loss (what the rest of the network makes of them) and an interpretability loss (sparse, smooth
codes) [P]. [I] Codes are linear in the channels at one place (a 1x1 convolution); the decoder has no bias, so that it
goes into the next layer's weights exactly; they start from the principal components, so that few steps suffice:
L = |a - D E a|_1 / |a|_1 + deep KL(r(a) || r(D E a)) + interpretability (H(p) + TV(c)), r the class probabilities
behind the layer, p_k = |c_k| normalised over places, H over its highest value, TV over the mean of |c|.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from whyprune.causal.concepts.design import ConceptDesign, step_cost
from whyprune.data.batches import Batch
from whyprune.errors import InputError
from whyprune.interventions.suffix import apart
from whyprune.structure.batch_place import BatchPlace
from whyprune.structure.capture import module_path
from whyprune.structure.network import Reader
from whyprune.structure.replay import Edit, Replay, leaves

TINY = 1e-12


@dataclass(frozen=True)
class Layer:
    """A tensor that readers see, and what lies behind it.

    Attributes:
        name: the module that reads it first.
        data: the tensor.
        dim: the dimension along which its channels lie.
        lie: where its images lie.
        readers: all operations that read it.
        steps: what runs again when they see something else.
        share: the part of the network's MACs that `steps` are.
    """

    name: str
    data: fx.Node
    dim: int
    lie: BatchPlace
    readers: tuple[Reader, ...]
    steps: tuple[fx.Node, ...]
    share: float

    def by_channel(self, value: Tensor, images: int) -> Tensor:
        """The tensor, or its codes, with images first and channels second."""
        return self.lie.front(value, images).movedim(self.lie.in_front(self.dim), 1)

    def edits(self, change: Edit) -> dict[tuple[fx.Node, fx.Node], Edit]:
        """Shows every reader the changed tensor."""
        return {(r.node, self.data): change for r in self.readers}


def layers(replay: Replay) -> list[Layer]:
    """All layers in which units are read, in execution order.

    Raises:
        InputError: the network mixes images.
    """
    network = replay.network
    network.check_images_apart()
    units = {unit.label for unit in network.units}
    macs = network.cost.by_operation()
    found = []
    order = {node: k for k, node in enumerate(network.graph.nodes)}
    read = {r.data for r in replay.seen() if not units.isdisjoint(r.labels.tolist())}
    for data in sorted(read, key=order.__getitem__):
        readers = tuple(r for r in replay.seen() if r.data is data)
        steps = tuple(replay.behind({r.node for r in readers}))
        share = sum(macs[n.name] for n in steps) / max(sum(macs.values()), 1)
        name, first = module_path(readers[0].node), readers[0]
        found.append(Layer(name, data, first.dim, apart(replay, first), readers, steps, share))
    return found


@dataclass(frozen=True)
class Autoencoder:
    """Codes c = E a + b of the channels a at one place, and what they stand for, D c.

    Attributes:
        encoder: E, (codes, channels).
        bias: b, (codes,).
        decoder: D, (channels, codes).
    """

    encoder: Tensor
    bias: Tensor
    decoder: Tensor

    def codes(self, value: Tensor, dim: int) -> Tensor:
        """Codes of a tensor, in the place of its channels."""
        return F.linear(value.movedim(dim, -1), self.encoder, self.bias).movedim(-1, dim)

    def decoded(self, codes: Tensor, dim: int) -> Tensor:
        """The channels that codes stand for."""
        return F.linear(codes.movedim(dim, -1), self.decoder).movedim(-1, dim)

    def rebuilt(self, value: Tensor, dim: int) -> Tensor:
        """D E a."""
        return self.decoded(self.codes(value, dim), dim)


def principal(second_moment: Tensor, codes: int) -> Autoencoder:
    """The linear autoencoder with the least squared error; `second_moment` is E[a a'], (channels, channels).

    Raises:
        InputError: it holds NaN or infinite numbers.
    """
    if not bool(torch.isfinite(second_moment).all()):
        raise InputError(
            "a layer reads NaN or infinite numbers on the calibration images: look at these images and at the weights"
        )
    _, basis = torch.linalg.eigh(second_moment)
    top = basis[:, -codes:].flip(1)
    top = top * torch.where(top.sum(dim=0) < 0, -1.0, 1.0)
    weight = top.float()
    return Autoencoder(weight.T.contiguous(), torch.zeros(codes), weight.contiguous())


def train(
    replay: Replay, layer: Layer, inputs: Batch, start: Autoencoder, design: ConceptDesign, generator: torch.Generator
) -> tuple[Autoencoder, float]:
    """(the trained autoencoder, its cost in dense forward passes of one image).

    Args:
        replay: the network.
        layer: whose tensor.
        inputs: images to train on.
        start: where to start from.
        design: losses, steps and rate.
        generator: of the order of images.
    """
    weights = [t.clone().requires_grad_() for t in (start.encoder, start.bias, start.decoder)]
    optimizer = torch.optim.Adam(weights, design.learning_rate)
    size = replay.network.graph.batch_size or min(design.batch, len(inputs))
    for _ in range(design.steps):
        chosen = torch.randperm(max(len(inputs), size), generator=generator)[:size] % len(inputs)
        with torch.enable_grad():
            loss = _loss(replay, layer, inputs[chosen], Autoencoder(*weights), design)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return Autoencoder(*(w.detach() for w in weights)), design.steps * size * step_cost(layer.share)


def _loss(replay: Replay, layer: Layer, batch: Batch, model: Autoencoder, design: ConceptDesign) -> Tensor:
    steps = list(layer.steps)
    values = leaves(replay.run(batch, keep=replay.frontier(steps) | {layer.data}))
    target = replay.read(values).log_softmax(dim=-1)
    value = values[layer.data]
    codes = model.codes(value, layer.dim)
    rebuilt = model.decoded(codes, layer.dim)
    changed = replay.read(replay.follow(values, steps, layer.edits(lambda _: rebuilt))).log_softmax(dim=-1)
    shallow = (rebuilt - value).abs().sum() / value.abs().sum().clamp_min(TINY)
    deep = F.kl_div(changed, target, log_target=True, reduction="none").sum(dim=-1).mean()
    loss: Tensor = shallow + design.deep * deep + design.interpretability * _complexity(layer, codes, len(batch))
    return loss


def _complexity(layer: Layer, codes: Tensor, images: int) -> Tensor:
    """Mean entropy over places, as a share of the highest, plus total variation relative to the mean of |c|."""
    maps = layer.by_channel(codes, images)
    if maps.dim() < 3:
        return codes.sum() * 0
    size = maps.abs()
    share = size.flatten(2) / size.flatten(2).sum(dim=2, keepdim=True).clamp_min(TINY)
    places = share.shape[2]
    entropy = -(share * share.clamp_min(TINY).log()).sum(dim=2).mean() / max(math.log(places), TINY)
    steps = [maps.diff(dim=d).abs().mean() for d in range(2, maps.dim()) if maps.shape[d] > 1]
    variation = torch.stack(steps).mean() / size.mean().clamp_min(TINY) if steps else entropy * 0
    found: Tensor = entropy + variation
    return found


def agreement(replay: Replay, layer: Layer, batches: Sequence[Batch], model: Autoencoder) -> float:
    """Share of images that the network puts in the same class with the layer's readers seeing D E a."""
    same = total = 0
    steps = list(layer.steps)
    for batch in batches:
        values = replay.run(batch, keep=replay.frontier(steps) | {layer.data})
        plain = replay.read(values).argmax(dim=-1)
        edits = layer.edits(lambda value: model.rebuilt(value, layer.dim))
        needed = {n: values[n] for n in replay.frontier(steps)}
        same += int((replay.resume(needed, steps, edits).argmax(dim=-1) == plain).sum())
        total += plain.numel()
    return same / max(total, 1)
