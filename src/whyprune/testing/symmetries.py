"""What a scorer's facts say of units in another order, of weights at another scale and of copies, put to the test."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from whyprune.effects.effects import Effects
from whyprune.scoring.contract import ScorerFacts
from whyprune.testing import planted, variants

CLOSE = 1e-3
"""Of the largest score: sums in another order differ by less."""
WIDER = 1.5
"""How much further apart than the half widths of both their intervals two estimates may be."""
Judge = Callable[[planted.Case], Effects]


def check_symmetries(found: Effects, facts: ScorerFacts, judged: Judge, case: planted.Case) -> None:
    """Checks what the facts say; `judged` scores the same network written down in another way.

    Raises:
        AssertionError: the facts do not hold.
    """
    images = len(case.images)
    other, was = variants.reordered(images)
    _check_order(found, judged(other), was, facts)
    if facts.scaling in ("invariant", "proportional"):
        _check_scaling(found, judged(variants.rescaled(images)), facts)
    _check_duplicates(found, facts, case)


def _check_order(found: Effects, reordered: Effects, was: dict[str, str], facts: ScorerFacts) -> None:
    place = {was[name]: k for k, name in enumerate(reordered.units)}
    order = [place[name] for name in found.units]
    mean, other = found.mean, reordered.mean[order]
    if facts.drawn:
        apart = np.abs(mean - other) - WIDER * (_half_width(found) + _half_width(reordered)[order])
        assert not (apart > CLOSE * _size(mean)).any(), "units in another order get effects outside the intervals"
        return
    if facts.duplicates != "alike":
        mean, other = _with_copies_sorted(found, mean), _with_copies_sorted(found, other)
    assert np.abs(mean - other).max() <= CLOSE * _size(mean), (
        "the same units in another order get other scores: if it draws for every unit, its facts say drawn=True"
    )


def _with_copies_sorted(found: Effects, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = mean.copy()
    for pair in planted.TWINS:  # which of two goes first may depend on their order
        at = [found.units.index(f"units:{k}") for k in pair]
        mean[at] = np.sort(mean[at])
    return mean


def _check_scaling(found: Effects, rescaled: Effects, facts: ScorerFacts) -> None:
    own = np.array([group == "units" for group in found.groups])
    before, after = (effects.mean[own] for effects in (found, rescaled))
    if facts.scaling == "proportional":
        factor = float(before @ after) / max(float(before @ before), np.finfo(float).tiny)
        assert factor > 0, "its facts say that scores are proportional to the scale of the weights: they vanish"
        after = after / factor
    else:
        before, after = found.mean, rescaled.mean
    assert np.abs(before - after).max() <= CLOSE * _size(before), (
        f"its facts say that scores are {facts.scaling} when a layer is scaled and its reader divided: they are not"
    )


def _check_duplicates(found: Effects, facts: ScorerFacts, case: planted.Case) -> None:
    at = [found.units.index(case.unit(k)) for k in (planted.COPY, planted.OTHER_COPY)]
    low, high = np.sort(found.mean[at])
    if facts.duplicates == "alike":
        allowed = WIDER * float(_half_width(found)[at].sum()) if facts.drawn else 0.0
        assert high - low <= allowed + CLOSE * _size(found.mean), "its facts say that copies are scored alike"
    if facts.duplicates == "one-first":
        assert low < high / 2, "its facts say that of two copies one goes first"


def _half_width(found: Effects) -> NDArray[np.float64]:
    """(units,); infinite where no interval is stated, since nothing is claimed there."""
    low, high = found.interval
    return np.where(np.isfinite(low) & np.isfinite(high), (high - low) / 2, np.inf)


def _size(mean: NDArray[np.float64]) -> float:
    return float(np.abs(mean).max()) or 1.0
