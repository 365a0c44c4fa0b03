"""Top-1 accuracy with its uncertainty, and the difference of two networks on the same images.

Sources: E. B. Wilson, JASA 22 (1927), the score interval; D. G. Bonett and R. M. Price, "Adjusted Wald
confidence interval for a difference of binomial proportions based on paired data", J. Educ. Behav. Stat. 37
(2012).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from whyprune.data.batches import Batch, as_batches
from whyprune.data.opened import length_of
from whyprune.data.outputs import logits_of
from whyprune.devices.base import Model
from whyprune.devices.evaluation import call, device_of, evaluating
from whyprune.errors import InputError
from whyprune.progress import track
from whyprune.results import Interval


class LabelsError(InputError):
    """Labels that are no classes, such as targets of a regression: there is no accuracy."""


Z_95 = float(stats.norm.ppf(0.975))
Correct = NDArray[np.bool_]


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy of one network.

    Attributes:
        top1_percent: percent of images whose largest logit is the label's.
        interval_percent: 95% Wilson interval.
        images: how many images.
        correct: per image, in the data's order, shape (images,).
        chance_percent: percent of images that have the commonest label: what always saying it would reach.
    """

    top1_percent: float
    interval_percent: Interval
    images: int
    correct: Correct = field(repr=False, compare=False)
    chance_percent: float | None = field(default=None, repr=False)


def accuracy(
    model: Model,
    batches: Iterable[Any],
    *,
    progress: bool = True,
    device: torch.device | str | None = None,
    description: str = "accuracy",
    logits: Callable[[Any], Tensor] = logits_of,
) -> Accuracy:
    """Counts right answers over labelled batches.

    Args:
        model: gives logits of shape (B, classes); runs in evaluation mode and gets its modes back.
        batches: `Batch`es, or what `as_batch` reads, with labels of shape (B,).
        progress: show a progress bar.
        device: where batches are sent; by default where the model's parameters are.
        description: the progress bar's text.
        logits: from what the network returns to logits (B, classes).

    Raises:
        LabelsError: labels that are no classes.
        InputError: no data, no labels, labels that do not fit the logits, or logits that are not finite.
    """
    target = device_of(model) if device is None else device
    with evaluating([model]):
        parts = [
            _correct(model, batch.to(target), logits)
            for batch in track(as_batches(batches), description, total=length_of(batches), enabled=progress)
        ]
    if not parts:
        raise InputError("no batches to measure accuracy on: give at least one labelled batch")
    correct = torch.cat([right for right, _ in parts]).cpu().numpy()
    commonest = int(torch.bincount(torch.cat([labels for _, labels in parts])).max())
    return _summary(correct, 100 * commonest / correct.size)


def paired_difference(correct_a: Correct, correct_b: Correct) -> tuple[float, Interval]:
    """Accuracy of a minus accuracy of b on the same images.

    Args:
        correct_a: per image, shape (images,); `Accuracy.correct`.
        correct_b: the same images in the same order.

    Returns:
        The difference in percentage points, and its 95% interval for paired data (Bonett and Price, 2012).

    Raises:
        InputError: the arrays are empty, or not of one shape (images,), or not boolean.
    """
    a, b = np.asarray(correct_a), np.asarray(correct_b)
    if a.ndim != 1 or a.shape != b.shape or a.size == 0 or a.dtype != bool or b.dtype != bool:
        raise InputError(
            f"correctness arrays are {a.dtype} {a.shape} and {b.dtype} {b.shape}: "
            "give two boolean arrays of shape (images,)"
        )
    images, only_a, only_b = a.size, int((a & ~b).sum()), int((~a & b).sum())
    share_a, share_b = (only_a + 1) / (images + 2), (only_b + 1) / (images + 2)
    centre = share_a - share_b
    half = Z_95 * float(np.sqrt((share_a + share_b - centre**2) / (images + 2)))
    interval = (100 * max(-1.0, centre - half), 100 * min(1.0, centre + half))
    return 100 * (only_a - only_b) / images, interval


def _summary(correct: Correct, chance_percent: float) -> Accuracy:
    images, right = correct.size, int(correct.sum())
    interval = stats.binomtest(right, images).proportion_ci(0.95, method="wilson")
    percent = (100 * float(interval.low), 100 * float(interval.high))
    return Accuracy(100 * right / images, percent, images, correct, chance_percent)


def _correct(model: Model, batch: Batch, read: Callable[[Any], Tensor]) -> tuple[Tensor, Tensor]:
    """Whether each answer is right, and the labels."""
    if batch.labels is None:
        raise InputError("a batch has no labels: accuracy needs (inputs, labels) or a dict with 'labels'")
    labels = batch.labels
    logits = read(call(model, batch))
    _check(labels, logits)
    return logits.argmax(dim=1) == labels, labels


def _check(labels: Tensor, logits: Tensor) -> None:
    if labels.dim() != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise LabelsError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}: give integer classes of shape (images,)"
        )
    if logits.dim() != 2 or logits.shape[0] != labels.shape[0]:
        raise InputError(
            f"logits have shape {tuple(logits.shape)} for {labels.shape[0]} labels: "
            "accuracy needs logits of shape (images, classes)"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]:
        raise InputError(
            f"labels run from {int(labels.min())} to {int(labels.max())} but the model has {logits.shape[1]} "
            f"classes: labels must lie in 0 to {logits.shape[1] - 1}"
        )
    if not bool(torch.isfinite(logits).all()):
        raise InputError("the model gives NaN or infinite logits: its accuracy would mean nothing")
