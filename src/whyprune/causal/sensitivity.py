"""First-order sensitivity of the output to every unit, image by image: two numbers from which much follows.

For a gradient g of some scalar by what a unit's readers see, and activations a, over places p and readers:
T = sum_p g_p a_p and G = sum_p g_p. Under do(unit := c) at all places the scalar changes by G c - T to first order;
`zero` is c = 0. Where the outcome has a gradient (`CrossEntropy`, `Margin`, `ClassLogit`), the scalar is the outcome
itself. `LogitShift` and `PredictionChange` have none at the dense network; there the scalars are random directions
s·z of the centred logits z with E[s s'] = 1, so that E[(G c - T)²] = |J δ|²: what `LogitShift` is to second order,
the curvature of the network itself left out.

A unit that a stream carries on past a reader is counted at each reader: what one term does to the unit further down
the same stream counts in both.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whyprune.causal.outcomes import ClassLogit, CrossEntropy, Margin, Outcome, centred
from whyprune.data.batches import Batch, as_batches
from whyprune.errors import InputError
from whyprune.structure.replay import Replay, Values

PROBES = 4


@dataclass(frozen=True)
class Sensitivity:
    """Sensitivities of units, image by image.

    Attributes:
        products: T, (probes, units, images).
        gradients: G, (probes, units, images).
        differentiable: True where the one probe is the outcome itself, False where probes are directions of the logits.
        forwards: cost in dense forward passes of one image; a backward pass counts as two.
    """

    products: Tensor
    gradients: Tensor
    differentiable: bool
    forwards: float

    @property
    def images(self) -> int:
        """How many images there are."""
        return int(self.products.shape[-1])

    def changes(self, constants: Tensor | None = None) -> Tensor:
        """First-order change of every probe's scalar under do(unit := c), (probes, units, images); c = 0 if None."""
        return -self.products if constants is None else self.gradients * constants[None, :, None] - self.products

    def optimal_constants(self) -> Tensor:
        """(units,): the constant c that is least harmful to second order: argmin of the mean of (G c - T)² over all.

        Where the outcome has a gradient of its own, that gradient adds its first-order term: Fisher's approximation of
        the curvature, h = g g', gives c* = (E[G T] - E[G]) / E[G²]. [I, after Li and Janson, NeurIPS 2024, who
        optimise the constant by gradient steps; consistent with the closed form in arXiv 2602.24266]
        """
        g, t = self.gradients.double(), self.products.double()
        squares = g.square().mean(dim=(0, 2))
        first = g.mean(dim=(0, 2)) if self.differentiable else torch.zeros_like(squares)
        found = ((g * t).mean(dim=(0, 2)) - first) / squares.clamp_min(torch.finfo(torch.float64).tiny)
        return torch.where(squares > 0, found, torch.zeros_like(found)).to(self.products.dtype)


def sensitivity(replay: Replay, data: Iterable[Any], outcome: Outcome, seed: int = 0) -> Sensitivity:
    """Runs forward and backward once per batch and probe.

    Args:
        replay: the network; units that it lacks get zeros.
        data: batches; labels only if the outcome needs them.
        outcome: fitted or not.
        seed: of the random directions.

    Raises:
        InputError: there is no data.
    """
    generator = torch.Generator().manual_seed(seed)
    differentiable = isinstance(outcome, CrossEntropy | Margin | ClassLogit)
    probes = 1 if differentiable else PROBES
    products: list[Tensor] = []
    gradients: list[Tensor] = []
    images = 0
    for batch in as_batches(data, replay.network.positional):
        pairs = [_probe(replay, batch, outcome if differentiable else None, generator) for _ in range(probes)]
        products.append(torch.stack([t for t, _ in pairs]))
        gradients.append(torch.stack([g for _, g in pairs]))
        images += len(batch)
    if not images:
        raise InputError("there is no data: sensitivities need images")
    cost = 3.0 * probes * images
    return Sensitivity(torch.cat(products, dim=2), torch.cat(gradients, dim=2), differentiable, cost)


def _probe(replay: Replay, batch: Batch, outcome: Outcome | None, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(T, G) of one scalar, each (units, images)."""
    logits, inputs = replay.differentiable(batch)
    if outcome is not None:
        scalar = outcome(logits, logits.detach(), batch.labels).sum()
    else:
        signs = torch.randint(0, 2, logits.shape, generator=generator).to(logits.dtype) * 2 - 1
        scalar = (centred(logits) * signs).sum()
    nodes = list(inputs)
    found = torch.autograd.grad(scalar, [inputs[n] for n in nodes], allow_unused=True)
    return _by_unit(replay, inputs, dict(zip(nodes, found, strict=True)), len(batch))


def _by_unit(replay: Replay, inputs: Values, gradients: Values, images: int) -> tuple[Tensor, Tensor]:
    """Sums over places and readers, unit by unit."""
    network = replay.network
    place = {u.label: k for k, u in enumerate(network.units)}
    products, sums = torch.zeros(len(place), images), torch.zeros(len(place), images)
    readers = {r.data: r for r in network.readers}
    for node, gradient in gradients.items():
        if gradient is None:
            continue
        reader = readers[node]
        labels = [label for label in reader.labels.tolist() if label not in replay.gone]
        kept = [k for k, label in enumerate(labels) if label in place]
        rows = torch.tensor([place[labels[k]] for k in kept], dtype=torch.long)
        for target, value in ((products, gradient * inputs[node].detach()), (sums, gradient)):
            flat = value.movedim(reader.dim, 1).reshape(images, -1, value.shape[reader.dim], *_rest(value, reader.dim))
            per_image = flat.movedim(2, 1).flatten(2).sum(dim=2)
            target.index_add_(0, rows, per_image[:, kept].T.to(target.dtype))
    return products, sums


def _rest(value: Tensor, dim: int) -> list[int]:
    """Sizes of the dimensions behind the batch but `dim`."""
    return [size for d, size in enumerate(value.shape) if d not in (0, dim)]
