"""What is certain of a pruned network: bounds that hold with stated confidence, from images that decided nothing.

The bounds are exact for independent images: Clopper and Pearson, Biometrika 26 (1934), one-sided. A drop in accuracy is
the difference of two shares, of images that only the dense network gets right and of those that only the pruned one
does; each gets half of the error (Bonferroni), which makes the bound a little wide and never narrow. [I]

They speak of images drawn as these were: certified on training images, a bound says nothing of test images.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import nn

from whyprune.data.batches import as_batches
from whyprune.errors import InputError
from whyprune.results import Certificate
from whyprune.structure.network import Network
from whyprune.structure.replay import Replay
from whyprune.structure.units import Unit

Flags = NDArray[np.bool_]


def certify(
    network: Network,
    data: Iterable[Any],
    pruned: nn.Module,
    units: Iterable[Unit | str],
    *,
    confidence: float = 0.95,
) -> Certificate:
    """Certifies a pruned network on fresh images: its accuracy where there are labels, else its predictions.

    Args:
        network: the traced original.
        data: batches that took part in no decision.
        pruned: the network without `units`, repaired or not.
        units: what it lacks.
        confidence: with which the bound holds.

    Raises:
        InputError: no images, labels on some batches only, or a confidence outside (0, 1).
    """
    dense, small = Replay(network), Replay(network, pruned, network.select(units))
    before, after, labels = [], [], []
    for batch in as_batches(data, network.positional):
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
        return certified_changes((first != second).numpy(), confidence)
    truth = torch.cat(known).to(first.device)
    return certified_drop((first == truth).numpy(), (second == truth).numpy(), confidence)


def certified_drop(dense_right: Flags, pruned_right: Flags, confidence: float = 0.95) -> Certificate:
    """At most how many points accuracy drops, from the same images in the same order, (images,) each.

    Raises:
        InputError: arrays that do not fit, or a confidence outside (0, 1).
    """
    if dense_right.shape != pruned_right.shape or dense_right.ndim != 1 or not dense_right.size:
        raise InputError(f"answers of shapes {dense_right.shape} and {pruned_right.shape}: give the same images twice")
    count = len(dense_right)
    lost, won = int((dense_right & ~pruned_right).sum()), int((pruned_right & ~dense_right).sum())
    error = (1 - _checked(confidence)) / 2
    bound = _upper(lost, count, error) - (1 - _upper(count - won, count, error))
    return Certificate(
        of="accuracy drop",
        bound_percent=100 * bound,
        measured_percent=100 * (lost - won) / count,
        confidence=confidence,
        images=count,
    )


def certified_changes(changed: Flags, confidence: float = 0.95) -> Certificate:
    """At most which share of predictions changes, from images whose prediction did, (images,); bounds the drop too.

    Raises:
        InputError: no images, or a confidence outside (0, 1).
    """
    if changed.ndim != 1 or not changed.size:
        raise InputError(f"changes of shape {changed.shape}: give one flag per image")
    count, found = len(changed), int(changed.sum())
    return Certificate(
        of="changed predictions",
        bound_percent=100 * _upper(found, count, 1 - _checked(confidence)),
        measured_percent=100 * found / count,
        confidence=confidence,
        images=count,
    )


def _upper(found: int, count: int, error: float) -> float:
    """The one-sided upper bound of Clopper and Pearson on a share."""
    return 1.0 if found == count else float(stats.beta.ppf(1 - error, found + 1, count - found))


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}: give a number between 0 and 1, such as 0.95")
    return confidence
