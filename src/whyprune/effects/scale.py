"""What a joint effect is held against: the harm of answers that know nothing of the sample they are given for.

Two such answers are made of the dense network's own outputs: the output of another sample, and one constant output, the
mean over samples. A third is the network's with all parameters at zero, its code alone: where a network adds to its
input (a denoiser's noise, a super-resolution network's details), that is nearer than the others. All are judged by the
outcome in use, so that any outcome has a scale, a user's own as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from whyprune.data.batches import Batch
from whyprune.effects.outcomes import Outcome

POOLED = 2**25
"""Output values that are held at a time: within so many, samples are paired across batches."""


@dataclass(frozen=True)
class Unknowing:
    """Mean harm over samples of two answers, each in the outcome's own units; None where no two samples were alike.

    Attributes:
        another: of the dense network's output for another sample.
        constant: of the mean of the dense network's outputs.
        untaught: of the network with all parameters at zero, where that is less than `constant`.
    """

    another: float | None = None
    constant: float | None = None
    untaught: float | None = None


def unknowing(
    outcome: Outcome, batches: Sequence[Batch], dense: Sequence[Any], untaught: Sequence[Tensor] | None = None
) -> Unknowing:
    """The harm of another sample's answer, of the mean answer, and of the code alone.

    Args:
        outcome: what harm is, fitted.
        batches: samples, for their labels.
        dense: the dense network's output on every batch: a tensor, or tensors in any structure, samples first.
        untaught: the same of the network with all parameters at zero; None for not known.
    """
    another, constant = [], []
    for outputs, labels in _pools(batches, dense):
        samples = _length(outputs)
        own = outcome(outputs, outputs, labels).double()
        another.append(outcome(_permuted(outputs, samples), outputs, labels).double() - own)
        constant.append(outcome(_averaged(outputs, samples), outputs, labels).double() - own)
    if not another:
        return Unknowing()
    mean, code = _harm(constant), _of_the_code(outcome, batches, dense, untaught)
    return Unknowing(_harm(another), mean, code if code is not None and 0 < code < mean else None)


def _of_the_code(
    outcome: Outcome, batches: Sequence[Batch], dense: Sequence[Any], untaught: Sequence[Tensor] | None
) -> float | None:
    """None where the answers are not known or not finite, or the outcome sees no harm in them."""
    if untaught is None or not all(bool(torch.isfinite(answer).all()) for answer in untaught):
        return None
    harms = [
        outcome(answer, target, batch.labels).double() - outcome(target, target, batch.labels).double()
        for answer, target, batch in zip(untaught, dense, batches, strict=True)
    ]
    return _harm(harms)


def _harm(parts: Sequence[Tensor]) -> float:
    """The mean; 0 where harms of both signs cancel to within twice its standard error."""
    harms = torch.cat(list(parts)).cpu().numpy()
    mean = float(harms.mean())
    chance = 2 * float(harms.std(ddof=1)) / np.sqrt(len(harms))
    return mean if mean > chance or (harms >= 0).all() or not np.isfinite(mean) else 0.0


def _pools(batches: Sequence[Batch], dense: Sequence[Any]) -> list[tuple[Any, Tensor | None]]:
    """(outputs, labels) of alike batches put together, each of two samples at least."""
    pools: list[list[int]] = []
    for number, output in enumerate(dense):
        fits = pools and _kind(dense[pools[-1][0]]) == _kind(output)
        if fits and sum(_values(dense[n]) for n in pools[-1]) + _values(output) <= POOLED:
            pools[-1].append(number)
        else:
            pools.append([number])
    found = []
    for pool in pools:
        outputs = _together([dense[n] for n in pool])
        known = [label for n in pool if (label := batches[n].labels) is not None]
        if _length(outputs) > 1:
            found.append((outputs, torch.cat(known) if len(known) == len(pool) else None))
    return found


def _permuted(outputs: Any, samples: int) -> Any:
    """Every sample gets another's: the next in a circle drawn once and for all, so that sorted data is no matter."""
    circle = torch.randperm(samples, generator=torch.Generator().manual_seed(0))
    other = torch.empty_like(circle)
    other[circle] = circle.roll(-1)
    return _over_samples(outputs, samples, lambda t: t[other.to(t.device)])


def _averaged(outputs: Any, samples: int) -> Any:
    """Every sample gets the mean; numbers that are whole have none and stay."""

    def mean(value: Tensor) -> Tensor:
        return value.mean(dim=0, keepdim=True).expand_as(value).contiguous() if value.is_floating_point() else value

    return _over_samples(outputs, samples, mean)


def _over_samples(outputs: Any, samples: int, change: Any) -> Any:
    return pytree.tree_map(lambda leaf: change(leaf) if _by_sample(leaf, samples) else leaf, outputs)


def _together(outputs: Sequence[Any]) -> Any:
    if len(outputs) == 1:
        return outputs[0]
    lengths = [_length(o) for o in outputs]
    flat = [pytree.tree_flatten(o)[0] for o in outputs]
    joined = [
        torch.cat(leaves) if all(map(_by_sample, leaves, lengths)) else leaves[0]
        for leaves in map(list, zip(*flat, strict=True))
    ]
    return pytree.tree_unflatten(joined, pytree.tree_flatten(outputs[0])[1])


def _by_sample(leaf: Any, samples: int) -> bool:
    return isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] == samples


def _tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def _length(output: Any) -> int:
    """Samples in an output: the length of its first tensor that has one."""
    return next((int(t.shape[0]) for t in _tensors(output) if t.dim()), 0)


def _values(output: Any) -> int:
    return sum(t.numel() for t in _tensors(output))


def _kind(output: Any) -> tuple[Any, ...]:
    leaves, spec = pytree.tree_flatten(output)
    return spec, *((tuple(t.shape[1:]), t.dtype) for t in leaves if isinstance(t, Tensor))
