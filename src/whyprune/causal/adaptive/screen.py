"""`Laboratory`: exact effects and gradient guesses of units on a growing number of images, and what both cost."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from whyprune.causal.adaptive.control_variate import Estimates, estimates
from whyprune.data.batches import Batch, joined
from whyprune.effects.effects import Effects
from whyprune.effects.outcomes import CrossEntropy, Outcome, Quadratic, judged
from whyprune.errors import InputError
from whyprune.interventions.sensitivity import Sensitivity, is_differentiable, sensitivity, sensitivity_cost
from whyprune.interventions.suffix import individual_effects, plain_cost, reference, relative_cost, suffixes
from whyprune.interventions.values import Intervention, checked, fit_cost
from whyprune.scoring.contract import Question
from whyprune.structure.entry import entered
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.units import Unit

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
BLOCK = 128
PROBES = 16
FITTED_ON = 256
SHARE = 0.1
"""Of a budget, at most, for what outcome and intervention must know of the images."""
EXPLAINED = 0.8
"""rho² of guesses, until it is known."""
WORTH = ((1 - (1 - EXPLAINED) ** 0.5) / EXPLAINED**0.5) ** 2
"""Guesses pay off if one costs less, G, than this share of an image's exact effects, C: then
(sqrt((1 - rho²) C) + sqrt(rho² G))² < C."""
LEADS = (1.0, 8.0)
"""The prescreen has between once and eight times as many images as there are exact effects."""


class Laboratory:
    """Measures units, image after image in a random order.

    Attributes:
        images: how many there are.
        outcome: fitted to all of them.
        guesses: whether the prescreen runs; without it, estimates are plain means of exact effects.
        measured: (units,), images on which each unit has exact effects so far.
        forward_passes: what everything cost, in dense forward passes of one image; a backward pass counts as two.
    """

    def __init__(
        self,
        state: State,
        batches: Sequence[Batch],
        units: Sequence[Unit],
        question: Question,
        *,
        guess: bool | None,
        lead: float | None = None,
        seed: int,
    ) -> None:
        """Runs the network once on the images, and the original too where units are gone.

        Args:
            state: the network as pruned so far.
            batches: all images there are.
            units: to measure.
            question: outcome, intervention, budget.
            guess: whether to run the prescreen; None where it is cheap beside exact effects.
            lead: images with guesses for each with exact effects; None for the best ratio of the two costs.
            seed: of the order of images and the prescreen's directions.

        Raises:
            InputError: no data, fewer than two images, or a budget that does not pay for two.
        """
        state, asked = judged(state, question.outcome)
        network = state.network
        self.network, self.units, self._seed = network, list(units), seed
        self._given, self._fixed_lead = tuple(u.name for u in state.removed), lead
        self._replay, self._budget = Replay.of(state), question.forward_passes
        self._dense, self._plain = reference(state, self._replay), plain_cost(state)
        self._size = network.graph.batch_size
        everything = joined(list(entered(batches, network)))
        self.images = self._usable(len(everything))
        order = np.random.default_rng(seed).permutation(len(everything))[: self.images]
        self._inputs = everything[torch.from_numpy(order)]
        logits = torch.cat([self._dense.logits(b) for b in self._batches(0, self.images)])
        self.outcome: Outcome = asked.fit(logits)
        self.forward_passes = float(self.images)
        self.value = self._fitted(question.intervention)
        self._probes = min(PROBES, 2 ** int(np.ceil(np.log2(max(logits.shape[-1], 2)))))
        moved = self._dense is not self._replay and isinstance(self.outcome, Quadratic)
        probes = 1 if is_differentiable(self.outcome) else self._probes
        self._guess_cost = sensitivity_cost(probes, moved=moved)
        cheap = self._guess_cost <= WORTH * self._cost(np.ones(len(units), dtype=bool))
        self.guesses = cheap if guess is None else guess
        groups = list(dict.fromkeys(u.group for u in units))
        self._groups = np.array([groups.index(u.group) for u in units])
        self._direct, self._guesses = np.zeros((len(units), 0)), np.zeros((len(units), 0))
        self.measured = np.zeros(len(units), dtype=np.int64)

    def extend(self, wanted: Flags, target: int, shortest: int) -> bool:
        """Measures the units `wanted` on the first `target` images, or as many as can be paid.

        Returns:
            Whether that brought anything: not if it would be fewer than `shortest` images.

        Raises:
            InputError: the budget does not pay for the first two images.
        """
        have = int(self.measured[wanted].min())
        target = min(target, self.images)
        if not self._affordable(wanted, target):
            target = bisect_left(range(target), True, lo=have, key=lambda n: not self._affordable(wanted, n + 1))
        target -= target % (self._size or 1)
        if target - have < min(shortest, self.images - have) or target <= have:
            if not have:
                raise InputError(f"{self._budget:g} forward passes do not pay for exact effects on 2 images: give more")
            return False
        self._guess(self._lead(wanted, target))
        self._measure(wanted, target)
        return True

    def estimates(self) -> Estimates:
        """What is known of all units by now."""
        return estimates(self._direct, self._guesses, self._groups)

    def effects(self, method: str) -> Effects:
        """What is known of all units by now, with 95% intervals; `samples` is the least number of images of any."""
        found = self.estimates()
        return Effects(
            units=tuple(u.name for u in self.units),
            groups=tuple(u.group for u in self.units),
            mean=found.mean,
            standard_error=found.error,
            samples=int(found.samples.min()),
            outcome=self.outcome.name,
            intervention=self.value.value,
            estimand="conditional" if self._given else "single",
            method=method,
            given=self._given,
            forward_passes=float(self.forward_passes),
            forward_passes_per_unit=float(self.forward_passes) / (len(self.units) * float(found.samples.mean())),
            bounds=found.interval(),
        )

    def explained(self) -> float:
        """Share of the variance of exact effects that guesses explain: rho², the median over units."""
        known = ~np.isnan(self._direct)
        guesses = np.where(known, self._guesses[:, : known.shape[1]], np.nan)
        a = self._direct - np.nanmean(self._direct, axis=1, keepdims=True)
        b = guesses - np.nanmean(guesses, axis=1, keepdims=True)
        spread = np.nansum(a**2, axis=1) * np.nansum(b**2, axis=1)
        moving = spread > 0
        squares = np.nansum(a * b, axis=1)[moving] ** 2 / spread[moving]
        return float(np.clip(np.median(squares), 0.01, 0.99)) if moving.any() else 0.01

    def _usable(self, images: int) -> int:
        """As many images as the budget lets look at, a multiple of the batch size the network runs on."""
        most = images if self._budget is None else min(images, max(2, int(SHARE * self._budget)))
        most -= most % (self._size or 1)
        if most < 2:
            raise InputError(f"{images} image(s) of data: at least 2 are needed for a standard error")
        return most

    def _fitted(self, name: str | None) -> Intervention:
        each = self._cost(np.ones(len(self.units), dtype=bool)) - self._plain
        per_image = fit_cost(checked(name), each)
        count = self.images if per_image <= 1 else min(FITTED_ON, self.images)
        if self._budget is not None and per_image > 1:
            count = min(count, max(2, int(self._budget / 4 / per_image)))
        value = Intervention(checked(name)).fit(self._replay, list(self._batches(0, count)), self.outcome, self.units)
        self.forward_passes += count * per_image if value.forward_passes == 0 else value.forward_passes
        return value

    def _cost(self, wanted: Flags) -> float:
        """Of exact effects of the units `wanted`, per image."""
        chosen = [u for u, take in zip(self.units, wanted, strict=True) if take]
        if not chosen:
            return 0.0
        return self._plain + relative_cost(self.network, suffixes(self._replay, chosen)) * len(chosen)

    def _affordable(self, wanted: Flags, target: int) -> bool:
        if self._budget is None:
            return True
        more = self._lead(wanted, target) - self._guesses.shape[1]
        cost = more * self._guess_cost if self.guesses else 0.0
        for have in np.unique(self.measured[wanted & (self.measured < target)]):
            cost += (target - have) * self._cost(wanted & (self.measured == have))
        return self.forward_passes + cost <= self._budget

    def _lead(self, wanted: Flags, target: int) -> int:
        """How many images the prescreen should have beside `target` exact ones, by the best ratio of the costs."""
        if not self.guesses:
            return target
        have = self._direct.shape[1]
        ratio = self._fixed_lead
        if ratio is None:
            share = EXPLAINED if have < 2 else self.explained()
            ratio = float(np.clip(np.sqrt(share / (1 - share) * self._cost(wanted) / self._guess_cost), *LEADS))
        lead = int(target * ratio)
        lead = min(max(lead, target, self._guesses.shape[1]), self.images)
        return lead - lead % (self._size or 1)

    def _guess(self, target: int) -> None:
        """Brings the prescreen to that many images."""
        first = self._guesses.shape[1]
        if not self.guesses:
            self._guesses = np.zeros((len(self.units), max(first, target)))
            return
        parts = [self._guesses]
        for batch in self._batches(first, target):
            found = sensitivity(
                self._replay,
                [batch],
                self.outcome,
                self._seed + first,
                dense=self._dense,
                probes=self._probes,
                value=self.value,
            )
            place = {u.name: k for k, u in enumerate(self.network.units)}
            parts.append(self._surrogate(found)[[place[u.name] for u in self.units]])
            self.forward_passes += found.forward_passes
            first += len(batch)
        self._guesses = np.concatenate(parts, axis=1)

    def _surrogate(self, found: Sensitivity) -> Floats:
        """(units, images) guesses from first-order changes."""
        first: Floats = found.first.double().numpy()
        if found.differentiable:
            return first + first**2 / 2 if isinstance(self.outcome, CrossEntropy) else first
        squares: Floats = (found.shifts.double().numpy() ** 2).mean(axis=0) / found.scale
        return first + squares

    def _measure(self, wanted: Flags, target: int) -> None:
        """Brings the units `wanted` to that many images."""
        more = max(0, target - self._direct.shape[1])
        self._direct = np.concatenate([self._direct, np.full((len(self.units), more), np.nan)], axis=1)
        for have in np.unique(self.measured[wanted & (self.measured < target)]):
            chosen = np.flatnonzero(wanted & (self.measured == have))
            units, batches = [self.units[k] for k in chosen], list(self._batches(have, target))
            self._direct[chosen, have:target] = individual_effects(
                self._replay, self._dense, batches, units, self.outcome, self.value
            )
            self.forward_passes += (target - have) * self._cost(np.isin(np.arange(len(self.units)), chosen))
            self.measured[chosen] = target

    def _batches(self, first: int, last: int) -> Iterator[Batch]:
        """The images of these numbers in batches of equal size, or of the one size that the network runs on."""
        count = -(-(last - first) // (self._size or BLOCK))
        bounds = [first + (last - first) * k // count for k in range(count + 1)] if count else []
        yield from (self._inputs[slice(start, stop)] for start, stop in pairwise(bounds))
