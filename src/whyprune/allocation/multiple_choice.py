"""The multiple-choice knapsack by dynamic programming: every trade of cost for value that no other one beats.

One choice of every class; costs and values add up. The undominated pairs of cost and value of the first k classes, the
*front*, are those of the first k - 1 with each choice of class k added, without what is dominated (Nemhauser and
Ullmann, 1969). The front holds the best of all choices within any cost, so that one run answers for every budget. Where
it grows beyond `MOST` pairs it is thinned to as many equal steps of cost, of each the pair of most value [I].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MOST = 20_000


@dataclass(frozen=True)
class Front:
    """All undominated choices, by rising cost and value.

    Attributes:
        costs: (points,).
        values: (points,).
        chosen: of every class, (points on the front up to it,): which choice each of its points took.
        before: likewise, from which point of the front before it.
    """

    costs: Floats
    values: Floats
    chosen: tuple[Ints, ...]
    before: tuple[Ints, ...]

    def choices(self, point: int) -> list[int]:
        """The choice of every class at a point."""
        found = []
        for chosen, before in zip(reversed(self.chosen), reversed(self.before), strict=True):
            found.append(int(chosen[point]))
            point = int(before[point])
        return found[::-1]


def front(classes: Sequence[tuple[Floats, Floats]], most: int = MOST) -> Front:
    """The front of classes, each with the costs and values of its choices.

    Args:
        classes: (costs, values), of as many choices as each has.
        most: pairs that are kept between two classes; no front that is smaller is thinned.
    """
    costs, values = np.zeros(1), np.zeros(1)
    chosen, before = [], []
    for own_costs, own_values in classes:
        sums = (costs[:, None] + own_costs[None, :]).ravel()
        worth = (values[:, None] + own_values[None, :]).ravel()
        kept = _undominated(sums, worth, most)
        chosen.append(kept % len(own_costs))
        before.append(kept // len(own_costs))
        costs, values = sums[kept], worth[kept]
    return Front(costs, values, tuple(chosen), tuple(before))


def _undominated(costs: Floats, values: Floats, most: int) -> Ints:
    """The places of pairs that none of lower or equal cost reaches in value, by rising cost."""
    order = np.lexsort((-values, costs))
    highest = np.maximum.accumulate(values[order])
    kept = order[np.r_[True, highest[1:] > highest[:-1]]]
    if len(kept) > most:
        step = (costs[kept[-1]] - costs[kept[0]]) / most
        cells = np.floor((costs[kept] - costs[kept[0]]) / step)
        kept = kept[np.r_[cells[1:] > cells[:-1], True]]
    return kept
