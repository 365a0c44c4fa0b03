"""Data for causal libraries: treatments, covariates and an outcome, one row a run.

`masks`: every unit is gone with probability `rate`, drawn anew for each run; the outcome is the run's individual
effect. `groups`: the same with blocks of units that go together. `observational`: nothing is gone; a treatment is a
unit's summary, and the outcome must differ from image to image by itself.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from whyprune.causal.fitted.scm import plain_runs
from whyprune.causal.fitted.variables import Variables, variables
from whyprune.errors import InputError
from whyprune.interventions.worlds import Worlds
from whyprune.scoring.contract import Question

Floats = NDArray[np.float64]
Regime = Literal["masks", "groups", "observational"]
RATE = 0.05


@dataclass(frozen=True)
class Design:
    """Runs as a table.

    Attributes:
        regime: `masks`, `groups` or `observational`.
        names: of the columns: units, or blocks of them.
        tier: (columns,), the number of the site at which each is read first.
        values: (rows, columns): 1 where gone, else 0; or the summaries.
        outcome: (rows,).
        title: the outcome's name.
        rate: with which probability a column is gone; NaN for `observational`.
    """

    regime: Regime
    names: tuple[str, ...]
    tier: NDArray[np.int64]
    values: Floats
    outcome: Floats
    title: str
    rate: float

    def column(self, name: str) -> int:
        """The number of a column.

        Raises:
            InputError: there is none of that name.
        """
        if name not in self.names:
            raise InputError(f"no unit or block named {name!r}: choose from {', '.join(self.names)}")
        return self.names.index(name)


def design(
    worlds: Worlds, question: Question, regime: Regime = "masks", *, rows: int | None = None, most: int = 48
) -> Design:
    """Draws the masks, if any, and runs them.

    Args:
        worlds: the network on its images.
        question: for the rate (default 0.05), the seed and the budget.
        regime: which data.
        rows: masked runs; None for 32 for each column, at most 4096, or as many as the budget leaves.
        most: blocks, for `groups`.

    Raises:
        InputError: an unknown regime; an outcome that is the same on all images without intervention.
    """
    if regime not in get_args(Regime):
        raise InputError(f"no regime {regime!r}: choose from {', '.join(get_args(Regime))}")
    every = variables(worlds, most if regime == "groups" else 10**9)
    if regime == "observational":
        return _observed(worlds, every)
    rng = np.random.default_rng(question.seed)
    rate = RATE if question.rate is None else question.rate
    count = min(4096, 32 * len(every.titles)) if rows is None else rows
    if question.forward_passes is not None and rows is None:
        count = int(question.forward_passes - worlds.forward_passes)
    count = max(count, 2 * len(every.titles))
    parts = rng.random((count, len(every.titles))) < rate
    effects = worlds.effects(parts[:, every.part], rng.integers(0, worlds.images, count))
    return Design(regime, every.titles, _first_site(every), parts.astype(float), effects, worlds.outcome.name, rate)


def _observed(worlds: Worlds, every: Variables) -> Design:
    if not np.ptp(worlds.base) > 0:
        raise InputError(
            f"outcome {worlds.outcome.name} compares with the network as it is: without interventions it is the same "
            "on every image. Choose 'margin' or 'cross-entropy', and give labels"
        )
    runs = plain_runs(worlds, every)
    first = _first_site(every)
    columns = [runs.raw[s][:, every.where.sites[s].units == k] for k, s in enumerate(first)]
    return Design(
        "observational", every.titles, first, np.concatenate(columns, axis=1), worlds.base, worlds.outcome.name, np.nan
    )


def _first_site(every: Variables) -> NDArray[np.int64]:
    """(parts,), where each part is read first."""
    last = len(every.here)  # what nothing reads comes behind all sites
    found = [next((k for k, here in enumerate(every.here) if p in here), last) for p in range(len(every.titles))]
    return np.array(found, dtype=np.int64)
