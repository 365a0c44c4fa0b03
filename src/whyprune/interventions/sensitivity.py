"""First-order sensitivity of the output to every unit, image by image: two numbers from which much follows.

For a gradient g of some scalar by what a unit's readers see, and activations a, over places p and readers:
T = sum_p g_p a_p and G = sum_p g_p. Under do(unit := c) at all places the scalar changes by G c - T to first order;
`zero` is c = 0. Where the outcome has a gradient (`CrossEntropy`, `Margin`, `ClassLogit`), the scalar is the outcome
itself. `LogitShift` and `PredictionChange` have none at the dense network; there the scalars are random directions
s·z of the centred logits z with E[s s'] = 1, so that E[(G c - T)²] = |J δ|²: what `LogitShift` is to second order,
the curvature of the network itself left out (and before it is divided by the outcome's scale). So it is for every
outcome that is `Quadratic`, such as `OutputShift`, whose z are its scaled rows.

Where units are gone already, `LogitShift` has a first order of its own besides: twice the shift so far times the
change. It is one more scalar, the outcome itself, compared with the original network (`dense`).

The signs of one image are rows of a Hadamard matrix with random columns' signs: as many probes as there are classes,
rounded up to a power of 2, give |J δ|² exactly; fewer give it without bias.

A unit that a residual stream carries on past a reader is counted at each reader: what the block between them adds to
the unit's own channel counts in both, though the second reader sees v there. Readers that carry the unit on themselves
(depthwise convolutions, norms) are passed by, which is exact for the former, and leaves the norm's statistics out.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whyprune.data.batches import Batch
from whyprune.effects.outcomes import ClassLogit, CrossEntropy, Margin, Outcome, Quadratic, centred
from whyprune.errors import InputError
from whyprune.interventions.suffix import Value, apart
from whyprune.structure.entry import entered
from whyprune.structure.replay import Replay, Values

PROBES = 4


@dataclass(frozen=True)
class Sensitivity:
    """Sensitivities of units, image by image.

    Attributes:
        products: T, (probes, units, images).
        gradients: G, (probes, units, images).
        shifts: first-order change of every probe's scalar under the intervention given, (probes, units, images);
            under `zero`, where none was given.
        differentiable: True where the one probe is the outcome itself, False where probes are directions of the logits.
        slopes: G of the outcome itself, (units, images); 0 for `LogitShift` at the original network.
        first: first-order change of the outcome itself under the intervention given, (units, images); 0 likewise.
        scale: that of `LogitShift`, where it was fitted, else 1.
        forward_passes: cost in dense forward passes of one image; a backward pass counts as two.
    """

    products: Tensor
    gradients: Tensor
    shifts: Tensor
    differentiable: bool
    slopes: Tensor
    first: Tensor
    scale: float
    forward_passes: float

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
        the curvature, h = g g', gives c* = (E[G T] - E[G]) / E[G²]; for `LogitShift`, whose effect is
        E[g c - t] + E[(G c - T)²] / scale, it is c* = (E[G T] - scale E[g] / 2) / E[G²]. [I, after Li and Janson,
        NeurIPS 2024, who optimise the constant by gradient steps; consistent with the closed form in arXiv 2602.24266]
        """
        g, t = self.gradients.double(), self.products.double()
        squares = g.square().mean(dim=(0, 2))
        first = self.slopes.double().mean(dim=1) * (1.0 if self.differentiable else self.scale / 2)
        found = ((g * t).mean(dim=(0, 2)) - first) / squares.clamp_min(torch.finfo(torch.float64).tiny)
        return torch.where(squares > 0, found, torch.zeros_like(found)).to(self.products.dtype)


def is_differentiable(outcome: Outcome) -> bool:
    """Whether an outcome has a gradient of its own at the dense network."""
    return isinstance(outcome, CrossEntropy | Margin | ClassLogit)


def sensitivity(
    replay: Replay,
    data: Iterable[Any],
    outcome: Outcome,
    seed: int = 0,
    *,
    dense: Replay | None = None,
    probes: int = PROBES,
    value: Value | None = None,
    progress: Callable[[int], None] | None = None,
) -> Sensitivity:
    """Runs forward once and backward once per probe, for every batch.

    Args:
        replay: the network; units that it lacks get zeros.
        data: batches; labels only if the outcome needs them.
        outcome: of rows, fitted or not; `LogitShift` has to be fitted where `dense` is another network, `OutputShift`
            always.
        seed: of the random directions.
        dense: the original network, to which the outcome compares; None for `replay` itself.
        probes: how many directions of the logits, where the outcome has no gradient of its own.
        value: the intervention, fitted; None for `zero`.
        progress: called with the number of images done.

    Raises:
        InputError: there is no data, or the network mixes images.
    """
    replay.network.check_images_apart()
    generator = torch.Generator().manual_seed(seed)
    differentiable = is_differentiable(outcome)
    count = 1 if differentiable else probes
    quadratic = outcome if isinstance(outcome, Quadratic) else None
    moved = dense is not None and dense is not replay and quadratic is not None
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    images = 0
    shared = _shared(replay)
    for batch in _batches(replay, data, shared):
        logits, inputs = replay.differentiable(batch)
        if first_only := shared and replay.network.graph.batch_size is not None:
            logits = logits[:1]  # the others are its copies
        labels = batch.labels[:1] if first_only and batch.labels is not None else batch.labels
        if differentiable:
            scalars = [outcome(logits, logits.detach(), labels).sum()]
        else:
            z = centred(logits) if quadratic is None else quadratic.directions(logits)
            scalars = [(z * s).sum() for s in signs(count, logits, generator)]
            if dense is not None and moved:
                scalars.append(outcome(logits, dense.logits(batch)[: len(logits)].clone(), labels).sum())
        found.append(_probes(replay, inputs, scalars, value, len(logits), len(batch)))
        images += len(logits)
        if progress is not None:
            progress(len(logits))
    if not images:
        raise InputError("there is no data: sensitivities need images")
    products, gradients, shifts = (torch.cat(parts, dim=2) for parts in zip(*found, strict=True))
    own, at_rest = (gradients[-1], shifts[-1]), torch.zeros_like(shifts[0])
    slopes, first = own if differentiable or moved else (at_rest, at_rest)
    return Sensitivity(
        products=products[:count],
        gradients=gradients[:count],
        shifts=shifts[:count],
        differentiable=differentiable,
        slopes=slopes,
        first=first,
        scale=(quadratic is not None and quadratic.scale) or 1.0,
        forward_passes=sensitivity_cost(count, moved=moved) * images,
    )


def _shared(replay: Replay) -> bool:
    """Whether a reader sees one value for all images."""
    network = replay.network
    seen = [*replay.seen(network.units), *replay.loops(network.units)]
    return any(network.batch_place(r.data) is None for r in seen)


def _batches(replay: Replay, data: Iterable[Any], shared: bool) -> Iterator[Batch]:
    """The batches; image by image where a reader sees one value for all: its gradient is then that of the one image.

    Where the network runs on one batch size only, an image comes with as many copies as that takes.
    """
    size = replay.network.graph.batch_size or 1
    for batch in entered(data, replay.network):
        if shared:
            yield from (batch[torch.full((size,), k)] for k in range(len(batch)))
        else:
            yield batch


def sensitivity_cost(probes: int, *, moved: bool = False) -> float:
    """Per image, in dense forward passes; `moved`: units are gone, and the outcome has a first order of its own."""
    return 1.0 + 2.0 * probes + (3.0 if moved else 0.0)


def signs(probes: int, logits: Tensor, generator: torch.Generator) -> Tensor:
    """Signs (probes, *logits.shape) with mean 0; those of one image are orthogonal as far as `probes` goes."""
    classes = logits.shape[-1]
    parity = np.bitwise_count(np.arange(probes)[:, None] & np.arange(classes)[None, :]) % 2
    rows = torch.from_numpy(1.0 - 2.0 * parity).to(logits.dtype)
    flips = torch.randint(0, 2, logits.shape, generator=generator).to(logits.dtype) * 2 - 1
    return rows.reshape(probes, *[1] * (logits.dim() - 1), classes) * flips


def _probes(
    replay: Replay, inputs: Values, scalars: Sequence[Tensor], value: Value | None, images: int, held: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(T, G, shift) of every scalar, each (probes, units, images), of the first `images` of those `held`."""
    nodes = list(inputs)
    rows = []
    for scalar in scalars:
        last = scalar is scalars[-1]
        found = torch.autograd.grad(scalar, [inputs[n] for n in nodes], allow_unused=True, retain_graph=not last)
        rows.append(_by_unit(replay, inputs, dict(zip(nodes, found, strict=True)), value, images, held))
    products, gradients, shifts = (torch.stack(parts) for parts in zip(*rows, strict=True))
    return products, gradients, shifts


def _by_unit(
    replay: Replay, inputs: Values, gradients: Values, value: Value | None, images: int, held: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over places and readers, unit by unit."""
    network = replay.network
    place = {u.label: k for k, u in enumerate(network.units)}
    products, sums, shifts = (torch.zeros(len(place), images) for _ in range(3))
    loops = {r.data: r for r in replay.loops(network.units)}
    readers = {r.data: r for r in network.readers} | loops
    for node, gradient in gradients.items():
        if gradient is None:
            continue
        reader = readers[node]
        labels = [label for label in reader.labels.tolist() if label not in replay.gone]
        kept = [k for k, label in enumerate(labels) if label in place]
        rows = torch.tensor([place[labels[k]] for k in kept], dtype=torch.long)
        seen = inputs[node].detach()
        lie = replay.network.batch_place(node) if images == 1 else apart(replay, reader)
        moved = -seen if value is None or node in loops else value.change(reader, seen, torch.arange(len(labels)), held)
        slope = torch.zeros_like(gradient) if node in loops else gradient  # no constant is put in there
        for target, term in ((products, gradient * seen), (sums, slope), (shifts, gradient * moved)):
            front = term[None] if lie is None else lie.front(term, held)[:images]
            by_channel = front.movedim(reader.dim + 1 if lie is None else lie.in_front(reader.dim), 1)
            per_image = by_channel.flatten(2).sum(dim=2) if by_channel.dim() > 2 else by_channel
            target.index_add_(0, rows, per_image[:, kept].T.to(target.dtype))
    return products, sums, shifts
