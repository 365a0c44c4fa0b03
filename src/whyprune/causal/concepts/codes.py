"""Runs of the network from which effects of codes are learnt: as it is, and with random codes set to zero.

Under do(code k := 0) the readers of the layer see a - D_k c_k: what the autoencoder cannot rebuild stays as it is, so
that its error is not taken for an effect, and a run without any code at zero is the network itself [I; the paper shows
the readers the decoded codes].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whyprune.causal.concepts.autoencoder import Autoencoder, Layer
from whyprune.causal.concepts.design import ConceptDesign
from whyprune.data.batches import Batch
from whyprune.structure.replay import Edit, Replay, Values, leaves

Floats = NDArray[np.float64]
Coded = Sequence[tuple[Layer, Autoencoder]]
BLOCK = 128


@dataclass(frozen=True)
class Runs:
    """What every run gave.

    Attributes:
        codes: per layer, the mean over places of every code, (runs, codes).
        given: per layer, True where a run set the code to zero itself, (runs, codes).
        probabilities: of the classes, (runs, classes).
    """

    codes: tuple[Floats, ...]
    given: tuple[NDArray[np.bool_], ...]
    probabilities: Floats

    @property
    def classes(self) -> NDArray[np.int64]:
        """The predicted class of every run."""
        found: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return found

    def joined(self, other: "Runs") -> "Runs":
        """These runs, then the others."""
        return Runs(
            tuple(np.concatenate(pair) for pair in zip(self.codes, other.codes, strict=True)),
            tuple(np.concatenate(pair) for pair in zip(self.given, other.given, strict=True)),
            np.concatenate([self.probabilities, other.probabilities]),
        )


def observed(replay: Replay, coded: Coded, batches: Sequence[Batch], images: int) -> Runs:
    """One run of the network as it is for each of the first `images` images."""
    codes: list[list[Floats]] = [[] for _ in coded]
    probabilities = []
    for batch in batches:
        values = replay.run(batch, keep={layer.data for layer, _ in coded})
        for found, (layer, model) in zip(codes, coded, strict=True):
            found.append(_pooled(layer, model.codes(values[layer.data], layer.dim), len(batch)))
        probabilities.append(_classes(replay.read(values)))
    pooled = tuple(np.concatenate(found)[:images] for found in codes)
    return Runs(pooled, tuple(np.zeros(c.shape, dtype=bool) for c in pooled), np.concatenate(probabilities)[:images])


def intervened(
    replay: Replay,
    coded: Coded,
    at: int,
    inputs: Batch,
    plain: Runs,
    masks: NDArray[np.bool_],
    images: NDArray[np.int64],
) -> Runs:
    """Runs in which codes of one layer are set to zero.

    Args:
        replay: the network.
        coded: all layers with their autoencoders.
        at: the place of the layer among them.
        inputs: all images.
        plain: the runs of the images as they are.
        masks: (runs, codes of the layer), True where a code is set to zero.
        images: (runs,), which image.
    """
    size = replay.network.graph.batch_size or BLOCK
    parts = [
        _block(replay, coded, at, inputs, masks[start : start + size], images[start : start + size])
        for start in range(0, len(images), size)
    ]
    found = [np.concatenate(part) if part[0] is not None else None for part in zip(*(p[0] for p in parts), strict=True)]
    codes = [plain.codes[k][images] if c is None else c for k, c in enumerate(found)]
    codes[at] = np.where(masks, 0.0, plain.codes[at][images])
    given = [np.zeros(c.shape, dtype=bool) for c in codes]
    given[at] = masks
    return Runs(tuple(codes), tuple(given), np.concatenate([p[1] for p in parts]))


def random_runs(
    replay: Replay, coded: Coded, at: int, inputs: Batch, plain: Runs, design: ConceptDesign, rng: np.random.Generator
) -> Runs:
    """Runs on random images, each with a random set of the layer's codes at zero."""
    images = rng.integers(0, len(inputs), design.runs)
    masks = rng.random((design.runs, plain.codes[at].shape[1])) < design.drop
    return intervened(replay, coded, at, inputs, plain, masks, images)


def measured(replay: Replay, coded: Coded, at: int, inputs: Batch, plain: Runs) -> Floats:
    """Per code of a layer: mean over images of the class probabilities' total variation under do(code := 0)."""
    found = []
    for code in range(plain.codes[at].shape[1]):
        masks = np.zeros((len(inputs), plain.codes[at].shape[1]), dtype=bool)
        masks[:, code] = True
        runs = intervened(replay, coded, at, inputs, plain, masks, np.arange(len(inputs)))
        found.append(np.abs(runs.probabilities - plain.probabilities).sum(axis=1).mean() / 2)
    return np.array(found)


def without(layer: Layer, model: Autoencoder, masks: Tensor) -> Edit:
    """Shows readers a - D c in the codes that the row sets to zero."""

    def change(value: Tensor) -> Tensor:
        codes = model.codes(value, layer.dim)
        gone = codes * layer.lie.spread(masks, codes, layer.dim).to(codes.dtype)
        return value - model.decoded(gone, layer.dim)

    return change


def _block(
    replay: Replay,
    coded: Coded,
    at: int,
    inputs: Batch,
    masks: NDArray[np.bool_],
    images: NDArray[np.int64],
) -> tuple[list[Floats | None], Floats]:
    """(codes of every layer that changes, class probabilities) of some runs."""
    layer, model = coded[at]
    steps, size = list(layer.steps), replay.network.graph.batch_size
    unique, inverse = np.unique(images, return_inverse=True)
    batch = inputs[torch.from_numpy(np.resize(unique, size) if size else unique)]
    values = replay.before(batch, steps)
    places = torch.from_numpy(np.resize(inverse, size) if size else inverse)
    kept: Values = leaves({n: replay.taken(n, values[n], places, len(batch)) for n in replay.frontier(steps)})
    shown = torch.from_numpy(np.resize(masks, (len(places), masks.shape[1])))
    with torch.no_grad():
        after = replay.follow(kept, steps, layer.edits(without(layer, model, shown)))
    count, inside = len(images), set(steps)
    codes: list[Floats | None] = [
        _pooled(other, m.codes(after[other.data].detach(), other.dim), len(places))[:count]
        if other.data in inside
        else None
        for other, m in coded
    ]
    return codes, _classes(replay.read(after).detach())[:count]


def _pooled(layer: Layer, codes: Tensor, images: int) -> Floats:
    """Mean over places (and parts of an image that lie along the batch), (images, codes)."""
    by_channel = layer.by_channel(codes, images).movedim(1, -1)
    found: Floats = by_channel.reshape(images, -1, by_channel.shape[-1]).mean(dim=1).double().numpy()
    return found


def _classes(logits: Tensor) -> Floats:
    found: Floats = logits.double().softmax(dim=-1).reshape(len(logits), -1).numpy()
    return found
