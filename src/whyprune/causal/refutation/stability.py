"""Stability: what effects must not depend on, and what they must.

They must not depend on which half of the images, on the value of the intervention, or on a mild shift of the images.
They must depend on which unit they were measured on (placebo) and on the network's weights (parameter randomisation,
after Adebayo et al., NeurIPS 2018). Limits are ours [I].
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from whyprune.causal.refutation.subject import Subject, agreement
from whyprune.data.batches import Batch, cut_images
from whyprune.effects.effects import Effects
from whyprune.results import Refutation

RELIABLE, ROBUST, UNRELATED = 0.7, 0.5, 0.5
PLACEBOS = 200
NOISE = 0.2


def split_half(subject: Subject) -> Refutation:
    """The order of units within groups is the same on two halves of the images.

    Half the images give a less reliable order than all of them; the formula of Spearman and Brown (1910),
    2 r / (1 + r), says how reliable the order from all images is.
    """
    first, second = cut_images(subject.batches, sum(map(len, subject.batches)) // 2)
    halves = agreement(subject.again(first), subject.again(second))
    found = 2 * halves / (1 + halves) if halves > 0 else halves
    passed = bool(found >= RELIABLE)
    return Refutation(
        name="split halves",
        passed=passed,
        value=found if np.isfinite(found) else None,
        limit=RELIABLE,
        sentence=f"Two halves of the data order units within groups alike (rank correlation {halves:.2f}): the order "
        f"from all of it has a reliability of {found:.2f} (at least {RELIABLE} wanted).",
    )


def placebo(subject: Subject) -> Refutation:
    """Judged effects agree with true ones better than effects that were dealt to other units of the group."""
    truth = subject.exact()
    actual = agreement(subject.judged, truth)
    rng = np.random.default_rng(subject.seed)
    dealt = [agreement(_dealt(subject, rng), truth) for _ in range(PLACEBOS)]
    limit = float(np.quantile([d for d in dealt if np.isfinite(d)] or [np.nan], 0.95))
    passed = bool(actual > limit)
    better = "better" if passed else "no better"
    return Refutation(
        name="permuted units",
        passed=passed,
        value=actual,
        limit=limit,
        sentence=f"Within groups the judgement agrees with interventions (rank correlation {actual:.2f}) {better} than "
        f"95% of judgements dealt to the wrong units ({limit:.2f}).",
    )


def intervention_values(subject: Subject) -> Refutation:
    """The order of true effects under zero is that under the mean and under the least harmful constant."""
    zero = subject.exact()
    found = {value: agreement(zero, subject.exact(intervention=value)) for value in ("mean", "optimal")}
    worst = min(found, key=lambda value: found[value])
    return _at_least("intervention value", found[worst], ROBUST, f"Set to {worst} instead of zero, units are ordered")


def shifted_images(subject: Subject) -> Refutation:
    """The order of units on noisy images is that on clean ones."""
    generator = torch.Generator().manual_seed(subject.seed)
    noisy = [_noisy(batch, generator) for batch in subject.batches]
    found = agreement(subject.judged, subject.again(noisy))
    return _at_least("shifted images", found, ROBUST, f"On data with {NOISE:.0%} noise, units are ordered")


def randomised_weights(subject: Subject) -> Refutation:
    """With shuffled weights the order is another: what is judged is the trained network."""

    def shuffle(model: nn.Module, _gone: object) -> None:
        generator = torch.Generator().manual_seed(subject.seed)
        with torch.no_grad():
            for parameter in model.parameters():
                flat = parameter.flatten()
                parameter.copy_(flat[torch.randperm(len(flat), generator=generator)].view_as(parameter))

    found = agreement(subject.judged, subject.on(subject.changed(shuffle), subject.units))
    passed = not found > UNRELATED
    said = "another" if passed else "nearly the same"
    return Refutation(
        name="randomised weights",
        passed=passed,
        value=found if np.isfinite(found) else None,
        limit=UNRELATED,
        sentence=f"With all weights shuffled the order within groups is {said} (rank correlation {found:.2f}, at most "
        f"{UNRELATED} wanted).",
    )


def _at_least(name: str, found: float, limit: float, what: str) -> Refutation:
    passed = bool(found >= limit)
    alike = "alike" if passed else "differently"
    return Refutation(
        name=name,
        passed=passed,
        value=found if np.isfinite(found) else None,
        limit=limit,
        sentence=f"{what} {alike} within groups (rank correlation {found:.2f}, at least {limit} wanted).",
    )


def _dealt(subject: Subject, rng: np.random.Generator) -> Effects:
    """The judged effects, dealt anew within every group."""
    mean = subject.judged.mean.copy()
    groups = np.array(subject.judged.groups)
    for group in dict.fromkeys(subject.judged.groups):
        inside = np.flatnonzero(groups == group)
        mean[inside] = rng.permutation(mean[inside])
    return replace(subject.judged, mean=mean)


def _noisy(batch: Batch, generator: torch.Generator) -> Batch:
    def shift(value: object) -> object:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        return value + NOISE * value.std() * torch.randn(value.shape, generator=generator, dtype=value.dtype)

    args: Iterable[object] = (shift(a) for a in batch.args)
    return replace(batch, args=tuple(args), kwargs={k: shift(v) for k, v in batch.kwargs.items()})
