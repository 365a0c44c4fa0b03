"""What is certain of a pruned network: bounds that hold with stated confidence, from images that decided nothing.

A certificate states two bounds, which hold together with the stated confidence: each gets half of the error
(Bonferroni). One is on images at large, a share: Clopper and Pearson, Biometrika 26 (1934), one-sided. The other is on
a fresh sample of a stated size, which differs from images at large by chance, so that it is wider: Thatcher,
"Relationships between Bayesian and confidence limits for predictions", JRSS B 26 (1964). Both are exact for independent
images; the second also for a random part of a finite set and the rest of it. [P]

A drop in accuracy is the difference of two shares, of images that only the dense network gets right and of those that
only the pruned one does; each gets half of its bound's error, which makes the bound a little wide and never narrow. [I]

They speak of images drawn as these were: certified on training images, a bound says nothing of test images.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from whyprune.errors import InputError
from whyprune.results import Certificate
from whyprune.structure.entry import entered
from whyprune.structure.replay import Replay
from whyprune.structure.state import State

Flags = NDArray[np.bool_]
Upper = Callable[[int, int, float], float]
"""(found, count, error) -> the upper bound on a share."""


def certify(
    state: State,
    data: Iterable[Any],
    *,
    confidence: float = 0.95,
    fresh_images: int | None = None,
) -> Certificate:
    """Certifies a pruned network on new images: its accuracy where there are labels, else its predictions.

    Args:
        state: the pruned network, repaired or not.
        data: batches that took part in no decision.
        confidence: with which both bounds hold.
        fresh_images: size of the fresh sample that the second bound is on; None for as many as there are here.

    Raises:
        InputError: no logits, no images, labels on some batches only, a confidence outside (0, 1), no fresh image.
    """
    if not state.network.outputs.is_logits:
        why = state.network.outputs.no_logits()
        raise InputError(f"there are no predicted classes to certify: {why}; measure joint_effect instead")
    dense, small = Replay(state.network), Replay.of(state)
    before, after, labels = [], [], []
    for batch in entered(data, state.network):
        before.append(dense.logits(batch).argmax(dim=-1))
        after.append(small.logits(batch).argmax(dim=-1))
        labels.append(batch.labels)
    if not before:
        raise InputError("there are no images to certify on: give fresh ones, which took part in no decision")
    known = [one for one in labels if one is not None]
    if known and len(known) < len(labels):
        raise InputError("some batches have labels and some do not: certify on one kind")
    first, second = torch.cat(before), torch.cat(after)
    if not known:
        return certified_changes((first != second).numpy(), confidence, fresh_images)
    truth = torch.cat(known).to(first.device)
    return certified_drop((first == truth).numpy(), (second == truth).numpy(), confidence, fresh_images)


def certified_drop(
    dense_right: Flags, pruned_right: Flags, confidence: float = 0.95, fresh_images: int | None = None
) -> Certificate:
    """At most how many points accuracy drops, from the same images in the same order, (images,) each.

    Raises:
        InputError: arrays that do not fit, a confidence outside (0, 1), no fresh image.
    """
    if dense_right.shape != pruned_right.shape or dense_right.ndim != 1 or not dense_right.size:
        raise InputError(f"answers of shapes {dense_right.shape} and {pruned_right.shape}: give the same images twice")
    count = len(dense_right)
    lost, won = int((dense_right & ~pruned_right).sum()), int((pruned_right & ~dense_right).sum())

    def drop(upper: Upper, error: float) -> float:
        return upper(lost, count, error / 2) - (1 - upper(count - won, count, error / 2))

    return _certificate("accuracy drop", drop, lost - won, count, confidence, fresh_images)


def certified_changes(changed: Flags, confidence: float = 0.95, fresh_images: int | None = None) -> Certificate:
    """At most which share of predictions changes, from images whose prediction did, (images,); bounds the drop too.

    Raises:
        InputError: no images, a confidence outside (0, 1), no fresh image.
    """
    if changed.ndim != 1 or not changed.size:
        raise InputError(f"changes of shape {changed.shape}: give one flag per image")
    count, found = len(changed), int(changed.sum())

    def share(upper: Upper, error: float) -> float:
        return upper(found, count, error)

    return _certificate("changed predictions", share, found, count, confidence, fresh_images)


def _certificate(
    of: Literal["accuracy drop", "changed predictions"],
    bound: Callable[[Upper, float], float],
    found: int,
    count: int,
    confidence: float,
    fresh_images: int | None,
) -> Certificate:
    """`bound` gives a share, from an upper bound on shares and the error that it may have."""
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}: give a number between 0 and 1, such as 0.95")
    fresh = count if fresh_images is None else fresh_images
    if fresh < 1:
        raise InputError(f"fresh_images is {fresh}: give the size of the sample that the bound is on, at least 1")
    error = (1 - confidence) / 2
    return Certificate(
        of=of,
        bound_percent=100 * bound(at_large, error),
        fresh_bound_percent=100 * bound(partial(in_fresh_sample, fresh), error),
        fresh_images=fresh,
        measured_percent=100 * found / count,
        confidence=confidence,
        images=count,
    )


def at_large(found: int, count: int, error: float) -> float:
    """The one-sided upper bound of Clopper and Pearson on the share of all images, from `found` of `count`."""
    return 1.0 if found == count else float(stats.beta.ppf(1 - error, found + 1, count - found))


@lru_cache(maxsize=4096)
def in_fresh_sample(fresh: int, found: int, count: int, error: float) -> float:
    """The upper bound on the share of `fresh` further images, from `found` of `count`.

    The largest number with which it would not be too rare, given both samples' sum, that so few were `found`: that has
    a hypergeometric distribution, whatever the share at large.
    """

    def too_rare(further: int) -> bool:
        return bool(stats.hypergeom.cdf(found, count + fresh, found + further, count) <= error)

    return (bisect_left(range(fresh + 1), True, key=too_rare) - 1) / fresh
