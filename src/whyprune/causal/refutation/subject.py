"""What is to be refuted: how a plan's units were judged, and what it takes to judge some of them again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from torch import nn

from whyprune.causal.exact import exact_effects
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.effects.outcomes import Outcome
from whyprune.interventions.places import Indices
from whyprune.structure.copies import duplicate
from whyprune.structure.network import Network
from whyprune.structure.state import State
from whyprune.structure.units import Unit, removed_indices

Judge = Callable[[State, Sequence[Batch], Sequence[str]], Effects]
"""Judges the named units of a state on images, in the way that the plan's units were judged."""

Change = Callable[[nn.Module, Mapping[tuple[str, int], Indices]], None]
"""Changes a module's weights in place; (parameter, axis) -> indices of the original that the module lacks."""


@dataclass(frozen=True)
class Subject:
    """A network, a way to judge its units, and images.

    Attributes:
        state: the network as pruned so far.
        judge: how units were judged.
        batches: images to judge on, with labels where the outcome needs them.
        outcome: what harm is.
        units: a sample of the network's units, of several in each group.
        judged: what `judge` says of the sample on all images.
        seed: of everything drawn.
    """

    state: State
    judge: Judge
    batches: tuple[Batch, ...]
    outcome: Outcome | str | None
    units: tuple[Unit, ...]
    judged: Effects
    seed: int

    @property
    def names(self) -> list[str]:
        """The names of the sample."""
        return [u.name for u in self.units]

    def again(self, batches: Sequence[Batch]) -> Effects:
        """The sample, judged on other images."""
        return self.judge(self.state, batches, self.names)

    def on(self, state: State, units: Sequence[Unit]) -> Effects:
        """Units judged in another state of the same architecture."""
        return self.judge(state, self.batches, [u.name for u in units])

    def changed(self, change: Change) -> State:
        """The state after a change of weights, of the original too: effects are relative to a network changed alike."""
        original = duplicate(self.state.network.model)
        change(original, {})
        network = replace(self.state.network, model=original)
        if self.state.is_dense and self.state.model is self.state.network.model:
            return State.of(network)
        model = duplicate(self.state.model)
        change(model, removed_indices(self.state.removed))
        return State(network, model, self.state.removed)

    def exact(self, batches: Sequence[Batch] | None = None, **options: Any) -> Effects:
        """The true effects of the sample, by intervention."""
        images = self.batches if batches is None else batches
        return exact_effects(self.state, images, outcome=self.outcome, units=self.units, **options)


def sampled(start: Network | State, count: int, seed: int) -> tuple[Unit, ...]:
    """About `count` units, spread over the groups that have at least two, at least two of each such group."""
    state = State.of(start)
    by_group: dict[str, list[Unit]] = {}
    for unit in state.units:
        by_group.setdefault(unit.group, []).append(unit)
    groups = [units for units in by_group.values() if len(units) > 1]
    rng = np.random.default_rng(seed)
    if len(groups) > count // 2:
        groups = [groups[k] for k in sorted(rng.choice(len(groups), max(count // 2, 1), replace=False))]
    each = max(2, count // max(len(groups), 1))
    chosen = [units[k] for units in groups for k in rng.choice(len(units), min(each, len(units)), replace=False)]
    return tuple(u for u in state.units if u in set(chosen))


def agreement(left: Effects, right: Effects) -> float:
    """Mean Spearman correlation within groups, weighted by their sizes; NaN where no group has an order.

    Within groups, because effects of different layers differ so much that any order across layers looks like a success.
    """
    total, weight = 0.0, 0
    groups = np.array(left.groups)
    values = right.by_unit()
    other = np.array([values[name] for name in left.units])
    for group in dict.fromkeys(left.groups):
        inside = groups == group
        found = spearman(left.mean[inside], other[inside])
        if np.isfinite(found):
            total, weight = total + found * inside.sum(), weight + int(inside.sum())
    return total / weight if weight else float("nan")


def spearman(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Spearman's rank correlation; NaN where one side is constant."""
    if len(left) < 2 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return float("nan")
    return float(stats.spearmanr(left, right).statistic)
