"""`Bench`: single effects of all units, and joint effects of sets of one group, on the same images.

Linear predictions are fitted on other images than effects are measured on, where there are enough: on the same ones a
layer with more channels than images would have everybody carried.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from whyprune.data.batches import Batch, cut_images
from whyprune.effects.intervals import moments, skew_corrected
from whyprune.effects.outcomes import Outcome, judged
from whyprune.errors import InputError
from whyprune.interventions.sets import SetEffects, set_cost
from whyprune.interventions.suffix import (
    chosen_units,
    individual_effects,
    plain_cost,
    reference,
    relative_cost,
    suffixes,
)
from whyprune.interventions.values import Intervention
from whyprune.scoring.contract import Question
from whyprune.scoring.filters import filter_distances, filters_of
from whyprune.structure.entry import entered
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.units import Unit

Floats = NDArray[np.float64]
Joint = Callable[[Sequence[int]], Floats]
UNCARRIED = 0.1
"""A unit is redundant if others carry all but this share of what it does."""
ROUNDING = 1e-6
"""Effects below this share of the group's largest are sums of rounding errors."""
MEASURED_ON = 64
"""Images at most; all others fit the linear predictions."""
PASSES = 98_304.0
"""Forward passes by default: they pay for so many images of a ResNet-20, and for half of them of a ResNet-56."""
FITTED = 0.25
"""Of a budget, at most, for the linear predictions."""
LEAST = 16
"""Images at least, where no budget is given: on fewer, nothing is clear."""
FEW = 8
"""Fewer images are not divided: predictions are fitted on those that effects are measured on."""


@dataclass(frozen=True)
class Group:
    """Units of one group: distances (units, units), unique effects and effects under `mean`, (units, images)."""

    units: list[Unit]
    distances: Floats
    unique: Floats
    alone: Floats

    @property
    def nothing(self) -> float:
        """An effect that is none."""
        return ROUNDING * float(np.abs(self.alone.mean(axis=1)).max())

    def closest_first(self) -> Iterator[tuple[int, int]]:
        """All pairs of units from the closest on: (the one that is asked, the other).

        Asked is the one of clearly less unique effect, or else effect under `mean`; the later one of equals.
        """
        unique, alone = self._apart(self.unique), self._apart(self.alone)
        more = np.where(unique != 0, unique, alone)
        rows, columns = np.triu_indices(len(self.units), 1)
        for pair in np.argsort(self.distances[rows, columns], kind="stable"):
            first, second = int(rows[pair]), int(columns[pair])
            yield (first, second) if more[first, second] < 0 else (second, first)

    def _apart(self, effects: Floats) -> Floats:
        """(units, units): by how much the effect of one is above that of another, 0 where images do not tell (95%)."""
        images = effects.shape[1]
        mean, covariance = effects.mean(axis=1), np.atleast_2d(np.cov(effects))
        own = covariance.diagonal()
        error = np.sqrt(np.maximum(own[:, None] + own[None, :] - 2 * covariance, 0) / images)
        difference = mean[:, None] - mean[None, :]
        reach = stats.t.ppf(0.975, images - 1) * error + self.nothing
        found: Floats = np.where(np.abs(difference) > reach, difference, 0.0)
        return found

    def carried(self, place: int, left: Floats) -> bool:
        """Whether what is `left` of an effect, image by image, is clearly at most a share of what it does alone."""
        alone = self.alone[place]
        share = UNCARRIED if alone.mean() >= 0 else -UNCARRIED
        _, high = skew_corrected(*moments((left - share * alone)[:, None]))
        return bool(high[0] <= self.nothing)


class Bench:
    """Single effects of all units, and joint effects of sets of one group, on the same images.

    Attributes:
        units: all that are there.
        images: that effects are measured on.
        outcome: fitted.
        asked: how many joint effects were measured.
        forward_passes: what everything cost.
    """

    def __init__(self, state: State, batches: Sequence[Batch], question: Question) -> None:
        """Fits predictions, and measures all units under `carried` and under `mean`.

        Raises:
            InputError: no data, fewer than two images, missing labels, or a budget that does not pay for two.
        """
        state, asked = judged(state, question.outcome)
        self.state, self.units = state, chosen_units(state)
        self._replay = Replay.of(state)
        self._dense, self._plain = reference(state, self._replay), plain_cost(state)
        self._each = relative_cost(state.network, suffixes(self._replay, self.units)) * len(self.units)
        self._measured, fitted = self._divided(list(entered(batches, state.network)), question.forward_passes)
        self.images, self.asked = sum(map(len, self._measured)), 0
        self.outcome: Outcome = asked.fit(torch.cat([self._dense.logits(b) for b in self._measured]))
        self._value = Intervention("carried").fit(self._replay, fitted)
        self._filters = filters_of(state)
        self._unique = self._singles(self._value)
        self._alone = self._singles(replace(self._value, value="mean"))
        self.forward_passes = self._value.forward_passes + self.images * (1 + 2 * (self._plain + self._each))

    def groups(self) -> Iterator[Group]:
        """All groups, with what is known of their units."""
        first = 0
        for _, group in groupby(self.units, key=lambda u: u.group):
            units = list(group)
            own = slice(first, first := first + len(units))
            close = np.minimum(filter_distances(units, self._filters), self._seen_distances(units))
            yield Group(units, close, self._unique[own], self._alone[own])

    def joint(self, group: Group) -> Joint:
        """(images,) from places among the units of a group: their joint effect under `carried`; each is run once."""
        joint = SetEffects(self._replay, self._dense, self._measured, group.units, self.outcome, self._value)
        self.forward_passes += self._plain * self.images
        known: dict[frozenset[int], Floats] = {frozenset([k]): effects for k, effects in enumerate(group.unique)}
        known[frozenset()] = np.zeros(self.images)

        def effects(places: Sequence[int]) -> Floats:
            if (key := frozenset(places)) not in known:
                self.asked += 1
                self.forward_passes += joint.cost * self.images
                known[key] = joint([group.units[k] for k in places])
            return known[key]

        return effects

    def _divided(self, batches: list[Batch], passes: float | None) -> tuple[list[Batch], list[Batch]]:
        """The images that effects are measured on, and those that predictions are fitted on."""
        total, size = sum(map(len, batches)), self.state.network.graph.batch_size or 1
        if total < 2:
            raise InputError(f"{total} image(s) of data: at least 2 are needed to tell effects from chance")
        groups = [list(group) for _, group in groupby(self.units, key=lambda u: u.group)]
        joint = sum(self._plain + 3 * len(units) * set_cost(self._replay, units) for units in groups)
        each = 1 + 2 * (self._plain + self._each) + joint
        paid = int((1 - FITTED) * (PASSES if passes is None else passes) // each)
        if paid < 2 and passes is not None:
            raise InputError(
                f"{passes:g} forward passes do not pay for joint effects on 2 images: give at least "
                f"{2 * each / (1 - FITTED):.0f}"
            )
        count = min(MEASURED_ON, max(paid, LEAST if passes is None else 2), total if total < FEW else total // 2)
        count = max(count // size, 1) * size
        measured, rest = cut_images(batches, count)
        most = int(FITTED * (PASSES if passes is None else passes))
        fitted = cut_images(rest, most - most % size)[0]
        return measured, fitted if total >= FEW and sum(map(len, fitted)) >= 2 else measured

    def _singles(self, value: Intervention) -> Floats:
        found = individual_effects(self._replay, self._dense, self._measured, self.units, self.outcome, value)
        return found.astype(np.float64)

    def _seen_distances(self, units: Sequence[Unit]) -> Floats:
        """sqrt(1 - r²) of what is read of every two units, r² being the mean over readers and channels."""
        shares = []
        for node, labels in {r.data: r.labels for r in self._replay.seen(units)}.items():
            places = [self._replay.positions(labels, [unit]) for unit in units]
            if len({len(at) for at in places}) != 1 or not len(places[0]):
                continue
            covariance = self._value.moments[node].covariance
            spread = covariance.diagonal().clamp_min(0).sqrt()
            correlation = covariance / torch.outer(spread, spread).clamp_min(torch.finfo(torch.float64).tiny)
            at = torch.stack(places)
            shares.append(correlation[at[:, None], at[None, :]].square().mean(dim=2))
        if not shares:
            return np.ones((len(units), len(units)))
        apart: Floats = (1 - torch.stack(shares).mean(dim=0)).clamp(0, 1).sqrt().numpy()
        return apart
