"""Activation variance: how much a unit's activation varies over images and places.

Variance as a score for removal with the mean folded into the next bias: VBP (arXiv 2507.12988); with a covariance
denoised by the Marchenko-Pastur law: arXiv 2608.17657 [P: eigenvalues above lambda+ are kept, the noise level comes
from the median eigenvalue, and the number of images, not of places, is the number of samples]. [I] The denoised score
is the diagonal of the covariance that the kept eigenvalues give; convolutions are scored like the MLPs of the paper.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import integrate, optimize
from torch import Tensor, fx

from whyprune.criteria.answer import scored
from whyprune.criteria.coupled import REDUCTIONS, checked
from whyprune.criteria.feature_maps import affordable, by_tensor, flat, maps_of, seen
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.errors import InputError
from whyprune.interventions.suffix import chosen_units
from whyprune.scoring.contract import NamedScorer, Question, ScorerFacts
from whyprune.structure.network import Network
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.units import Unit


def activation_variance(
    start: Network | State,
    data: Iterable[Any],
    *,
    denoise: bool = False,
    units: Sequence[Unit | str] | None = None,
    reduction: str | None = None,
) -> Effects:
    """The variance of every unit's activation over images and places, as its readers see it.

    Args:
        start: a traced model, or a state of it.
        data: batches; labels are not used.
        denoise: take the diagonal of the covariance of all channels without its noise.
        units: which units (default: all that are there).
        reduction: over the tensors in which a unit is read: `mean` (default), `sum` or `max`.

    Raises:
        InputError: fewer than two images, another reduction, or an unknown unit.
    """
    state = State.of(start)
    chosen = chosen_units(state, units)
    combine = REDUCTIONS[checked(reduction)]
    covariances, images = _covariances(state, data)
    variances = {
        node: (denoised(found, images) if denoise else found).diagonal() for node, found in covariances.items()
    }
    labels = {node: reader.labels for node, reader in seen(state).items()}
    parts = by_tensor(Replay.of(state), chosen, variances, labels)
    return scored(
        state,
        chosen,
        [combine(own) if own else 0.0 for own in parts],
        method="activation-variance-denoised" if denoise else "activation-variance",
        samples=images,
        forward_passes=float(images),
    )


def _covariances(state: State, data: Iterable[Any]) -> tuple[dict[fx.Node, Tensor], int]:
    """(channels, channels) of every tensor in which units are read, over images and places; the number of images."""
    moments: dict[fx.Node, list[Tensor]] = {}
    images = 0
    for count, maps in maps_of(state, data):
        for node, own in maps.items():
            rows = flat(own).movedim(1, 2).flatten(0, 1)
            new = [torch.tensor(float(len(rows))), rows.sum(dim=0), rows.T @ rows]
            before = moments.get(node, [torch.zeros_like(part) for part in new])
            moments[node] = [a + b for a, b in zip(before, new, strict=True)]
        images += count
    if images < 2:
        raise InputError(f"{images} image(s) of data: at least 2 are needed for a variance")
    means = {node: total / count for node, (count, total, _) in moments.items()}
    return {n: p / c - torch.outer(means[n], means[n]) for n, (c, _, p) in moments.items()}, images


def denoised(covariance: Tensor, images: int) -> Tensor:
    """The covariance (C, C) that its eigenvalues above the noise give.

    The noise level is that at which the median eigenvalue is the median of the Marchenko-Pastur law of C channels and
    so many images; eigenvalues up to its upper edge are noise.
    """
    channels = len(covariance)
    ratio = channels / images
    values, vectors = torch.linalg.eigh(covariance)
    level = values[-min(channels, images) :].median() / _median(min(ratio, 1 / ratio)) / max(1.0, ratio)
    kept = torch.where(values > level * (1 + ratio**0.5) ** 2, values, torch.zeros_like(values))
    without_noise: Tensor = (vectors * kept) @ vectors.T
    return without_noise


def _median(ratio: float) -> float:
    """The median of the Marchenko-Pastur law of unit variance and ratio <= 1 of channels to samples."""
    low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2

    def density(x: float) -> float:
        return float(np.sqrt(max((high - x) * (x - low), 0.0)) / (2 * np.pi * ratio * x))

    def below(x: float) -> float:
        return float(integrate.quad(density, low, x, limit=200)[0]) - 0.5

    return float(optimize.brentq(below, low + 1e-9, high))


def _scorer(name: str, summary: str, paper: str, *, denoise: bool) -> NamedScorer:
    def score(state: State, batches: Sequence[Batch], question: Question) -> Effects:
        chosen = affordable(batches, question)
        return activation_variance(state, chosen, denoise=denoise, units=question.units, reduction=question.reduction)

    facts = ScorerFacts(
        kind="criterion",
        summary=summary,
        estimand="score",
        cost="one forward pass per image",
        guarantee="none",
        paper=paper,
        labels="no",
        reduces=True,
        scaling="proportional",
        duplicates="alike",
    )
    return NamedScorer(name, facts, score)


plain = _scorer(
    "activation-variance", "variance of the activation over images and places", "arXiv 2507.12988", denoise=False
)
cleaned = _scorer(
    "activation-variance-denoised",
    "variance of the activation in the covariance without its noise (Marchenko-Pastur)",
    "arXiv 2608.17657",
    denoise=True,
)
