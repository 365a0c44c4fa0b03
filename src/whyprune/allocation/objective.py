"""`Objective`: what a point does to the outcome: predicted from curves or effects, or measured on the network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from whyprune.allocation.space import Point, Space
from whyprune.effects.effects import Effects, ResponseCurve
from whyprune.errors import InputError
from whyprune.structure.network import Network
from whyprune.structure.units import Unit


class Evaluator(Protocol):
    """Measures the harm of removing units, such as their joint effect: cuts, mends if it was told to, and looks."""

    forward_passes: float

    def __call__(self, units: Sequence[str], /) -> float:
        """The harm of removing all these units, infinite where it is no number; asked twice, it is measured once."""
        ...


@dataclass(frozen=True)
class Objective:
    """What is minimised within a budget.

    Attributes:
        space: of the plans it speaks of.
        orders: group -> its units that are still there, in the order in which they go.
        curves: group -> height over how many further units are gone; along it the search walks.
        blocks: residual block -> the effect of bypassing it.
        scores: unit -> its effect or score, on one scale over all groups.
        predict: summed effects of units, where a prediction is made from them instead of from the curves; None where
            curves predict.
        promises: whether heights are effects: scores of a criterion rank, and predict nothing.
        base: the joint effect of what is removed already.
        natural_widths: group -> how many units the scorer finds distinct; empty where it finds none.
        evaluator: measures points; None where no images were given.
        plans: how many points a search measures at most; None for as many as its allocator does by default.
    """

    space: Space
    orders: Mapping[str, tuple[str, ...]]
    curves: Mapping[str, ResponseCurve]
    blocks: Mapping[str, float] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    predict: Callable[[Sequence[str]], float] | None = None
    promises: bool = True
    base: float = 0.0
    natural_widths: Mapping[str, int] = field(default_factory=dict)
    evaluator: Evaluator | None = None
    plans: int | None = None

    @property
    def ends(self) -> dict[str, int]:
        """Group -> the most units that are gone along its curve; those that are gone now where it has none."""
        reach = {name: int(curve.removed[-1]) for name, curve in self.curves.items()}
        return {name: count + reach.get(name, 0) for name, count in self.space.bounds.before.items()}

    def height(self, name: str, stop: int) -> float:
        """What one variable at a stop adds, read off its curve, linear between the points that were measured."""
        if name in self.space.inside:
            return self.blocks[name] * stop
        curve = self.curves[name]
        return float(np.interp(stop - self.space.start[name], curve.removed, curve.effect))

    def predicted(self, point: Point) -> float:
        """The predicted joint effect of a point; for scores of a criterion a number that only ranks points."""
        if self.predict is not None:
            return self.base + self.predict(self.fresh_units(point))
        idle = self.space.idle(point)
        widths = (n for n in self.curves if n not in idle and n in point)
        heights = sum(self.height(name, point[name]) for name in widths)
        return self.base + heights + sum(self.height(name, 1) for name in self.space.gone_blocks(point))

    def measured(self, point: Point) -> float:
        """The harm of a point, measured on the network; points that remove the same units are measured once.

        Raises:
            InputError: there is nothing to measure with.
        """
        if self.evaluator is None:
            raise InputError("points cannot be measured: no images were given to measure them on")
        harm = float(self.evaluator(self.units(point)))
        return harm if np.isfinite(harm) else np.inf

    def units(self, point: Point) -> tuple[str, ...]:
        """The names of all units that are gone at a point."""
        return self.space.units(point, self.orders)

    def fresh_units(self, point: Point) -> tuple[str, ...]:
        """Those of them that are still there in the state that the space starts from."""
        before = {unit.name for unit in self.space.state.removed}
        return tuple(name for name in self.units(point) if name not in before)


def along_curves(
    space: Space,
    curves: Mapping[str, ResponseCurve],
    *,
    blocks: Mapping[str, float] | None = None,
    base: float = 0.0,
    evaluator: Evaluator | None = None,
) -> Objective:
    """The objective of measured response curves, and of residual blocks whose bypassing was measured.

    Args:
        space: of the plans.
        curves: group -> response curve, conditional on what the space's state lacks already.
        blocks: residual block -> effect of bypassing it, given the same.
        base: the joint effect of what is gone already.
        evaluator: measures points.
    """
    orders = {}
    for name, group in space.bounds.groups.items():
        first = curves[name].order if name in curves else ()
        orders[name] = (*first, *(u.name for u in _left(space, group.units) if u.name not in set(first)))
    scores = {
        unit: float(np.interp(k + 1, curve.removed, curve.effect))
        for curve in curves.values()
        for k, unit in enumerate(curve.order)
    }
    known = {name: effect for name, effect in (blocks or {}).items() if name in space.inside}
    return Objective(space, orders, dict(curves), known, scores, base=base, evaluator=evaluator)


def along_scores(space: Space, effects: Effects, *, base: float = 0.0, evaluator: Evaluator | None = None) -> Objective:
    """The objective of effects or scores of single units: those of a group are taken to add up, lowest first.

    Heights along which a search walks never fall, and none reaches the last unit of a group: sums of single effects say
    least where little is left. Scores of a criterion have no common scale: they are divided by their group's mean, as
    DepGraph (Fang et al., CVPR 2023) does.
    """
    scores = comparable(space.network, effects)
    orders, curves = {}, {}
    for name, group in space.bounds.groups.items():
        order = ascending(_left(space, group.units), scores)
        orders[name] = tuple(u.name for u in order)
        kept = order[: len(order) - 1]
        height = np.cumsum([0.0, *(max(scores[u.name], 0.0) for u in kept)])
        counts = np.arange(len(height))
        curves[name] = ResponseCurve(name, tuple(u.name for u in kept), counts, height, 0 * height)
    single = effects.by_unit()
    return Objective(
        space,
        orders,
        curves,
        scores=scores,
        predict=lambda units: float(sum(single[name] for name in units)),
        promises=effects.estimand != "score",
        base=base,
        natural_widths=effects.natural_widths,
        evaluator=evaluator,
    )


def ascending(units: Sequence[Unit], scores: Mapping[str, float]) -> list[Unit]:
    """Units that have a score, the lowest first."""
    return sorted((u for u in units if u.name in scores), key=lambda u: scores[u.name])


def comparable(network: Network, effects: Effects) -> dict[str, float]:
    """Effects by unit, on one scale: scores that are not on one already are divided by their group's mean."""
    scores = effects.by_unit()
    if effects.estimand != "score" or effects.across_groups:
        return scores
    for group in network.groups:
        own = [scores[u.name] for u in group.units if u.name in scores]
        mean = float(np.mean(np.abs(own))) if own else 0.0
        if mean > 0:
            scores.update({u.name: scores[u.name] / mean for u in group.units if u.name in scores})
    return scores


def _left(space: Space, units: Sequence[Unit]) -> list[Unit]:
    """Those of a group's units that are still there."""
    gone = {unit.name for unit in space.state.removed}
    return [unit for unit in units if unit.name not in gone]
