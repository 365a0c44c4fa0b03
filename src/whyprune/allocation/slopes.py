"""What curves say of widths: where the next unit is cheap in effect for the cost it saves, and where it is dear [I].

At the best widths along additive curves no exchange pays: what a unit more adds to the effect, per share of the budget
that it saves, is the same in every group. So a group below the common level should be narrower, one above it wider.
"""

from dataclasses import dataclass

import numpy as np

from whyprune.allocation.budget import Budget
from whyprune.allocation.candidates import Floats
from whyprune.allocation.objective import Objective
from whyprune.allocation.space import Space

WINDOW = 8
"""Slopes are taken over an eighth of a group's units to either side: about as far apart as curves are measured."""
DOUBLINGS = 2.0
"""A group whose unit is so many doublings above or below the common level is pulled with full strength."""


@dataclass(frozen=True)
class Slopes:
    """Effect per saving of every group, at any widths.

    Attributes:
        space: of the widths.
        objective: has the curves, measured ones or sums of scores.
        budget: whose kinds of costs are saved.
    """

    space: Space
    objective: Objective
    budget: Budget

    def pulls(self, widths: Floats) -> Floats:
        """Of every group a number from -1 (should be narrower) to 1 (wider), at these widths (groups,).

        0 for a group of which no curve is known, and for all where units have no effect or save nothing.
        """
        slopes = self.of(widths)
        known = np.isfinite(slopes)
        positive = slopes[known & (slopes > 0)]
        if not len(positive):
            return np.zeros(len(widths))
        level = np.log2(np.where(known & (slopes > 0), slopes, 1.0)) - np.median(np.log2(positive))
        found = np.where(slopes > 0, np.clip(level / DOUBLINGS, -1.0, 1.0), -1.0)
        return np.where(known, found, 0.0)

    def of(self, widths: Floats) -> Floats:
        """Effect per saved share of the budget, (groups,), not below 0; infinite where it is not known."""
        groups = self.space.bounds.groups
        gone = {n: len(g.units) - round(float(w)) for (n, g), w in zip(groups.items(), widths, strict=True)}
        return np.array([self._of(name, gone) for name in groups])

    def _of(self, name: str, gone: dict[str, int]) -> float:
        if name not in self.objective.curves or name in self.space.idle(gone):
            return np.inf
        first, last = self.space.start[name], self.objective.ends[name]
        reach = max(1, len(self.space.bounds.groups[name].units) // WINDOW)
        low = max(first, min(gone[name] - reach, last - 1))
        high = min(last, max(gone[name] + reach, first + 1))
        if low >= high:
            return np.inf
        dear = max(0.0, self.objective.height(name, high) - self.objective.height(name, low))
        saved = self._cost({**gone, name: low}) - self._cost({**gone, name: high})
        return dear / saved if saved > 0 else np.inf

    def _cost(self, gone: dict[str, int]) -> float:
        """The costs that the budget bounds, as shares of its bounds, added up."""
        limits = self.budget.limits(self.space.network.cost())
        return float(sum(self.space.amount(kind, gone) / limit for kind, limit in limits.items()))
