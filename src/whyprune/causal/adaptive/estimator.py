"""Interventions where the decision is open: who are the k least harmful units, measured until that is settled.

    1. A gradient prescreen guesses every unit's effect on N images: for `LogitShift` the squared first-order change of
       the logits (`sensitivity`), otherwise the first-order change, with Fisher's second-order term for cross-entropy.
    2. Exact effects on the first n of these images correct the guesses (`control_variate`).
    3. Units race: with b the middle between the k-th and the next estimate, a unit is settled when its simultaneous
       interval excludes b. Only the others are measured on, each round on as many new images as there were before.
    4. It ends when all are settled, or budget or images are spent.

If all simultaneous intervals hold and all units are settled, then k units are below b and the others above: the k
units chosen are the right ones, whatever b was. Intervals are Bonferroni's over units and rounds. Ties cannot be
settled, so a unit within `tolerance` of b, relatively, may fall on either side. The prescreen grows with the round by
the best ratio of the two costs, N / n = sqrt(rho² / (1 - rho²) * cost of exact effects / cost of a guess).

Racing with control variates on paired effects: ours [I]; the parts are Molchanov et al. (CVPR 2019, Taylor), Cochran
(1977, control variates) and Maron and Moore (NIPS 1994, racing). The 95% intervals of the result are for the images
that a unit was measured on; that a unit stops early because its estimate is far from b is not corrected for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whyprune.causal.adaptive.control_variate import Estimates
from whyprune.causal.adaptive.screen import Laboratory
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.errors import InputError
from whyprune.interventions.suffix import chosen_units
from whyprune.progress import Progress
from whyprune.scoring.contract import ALL_INTERVENTIONS, Question, scorer
from whyprune.structure.network import Network
from whyprune.structure.state import State

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
LEAST = 128
SHORTEST = 8
"""A round of fewer new images is not worth its while."""


@dataclass(frozen=True)
class Race:
    """What is to be decided, and how surely.

    Attributes:
        remove: how many units are to go; None for half.
        confidence: that the decision is right when it is called settled.
        tolerance: units this close to the boundary, relatively, may fall on either side.
        prescreen: whether gradients guess first; None where that is cheap beside exact effects, as in networks of
            more than a few dozen units.
        least: images that every unit is measured on, where there are as many and they can be paid.
        seed: of the order of images and of the prescreen's directions.
    """

    remove: int | None = None
    confidence: float = 0.95
    tolerance: float = 0.1
    prescreen: bool | None = None
    least: int = LEAST
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1 or self.tolerance < 0 or self.least < 2:
            raise InputError(
                f"confidence {self.confidence:g}, tolerance {self.tolerance:g}, least {self.least}: give a "
                "probability, a tolerance of at least 0, and at least 2 images"
            )


@dataclass(frozen=True)
class Verdict:
    """Who goes, and how that was found.

    Attributes:
        effects: of all units; `samples` is the least number of images any was measured on.
        goes: names of the k units with the least effects.
        undecided: names of the units whose side is not settled.
        images: images that each unit was measured on, (units,).
        rounds: how many rounds there were.
    """

    effects: Effects
    goes: tuple[str, ...]
    undecided: tuple[str, ...]
    images: NDArray[np.int64]
    rounds: int

    @property
    def settled(self) -> bool:
        """Whether the decision is made at the confidence asked for."""
        return not self.undecided


@scorer(
    "adaptive",
    kind="estimator",
    summary="exact effects corrected by gradient guesses, measured on where it is open which half of the units goes",
    estimand="single effect",
    cost="a few backward passes and, per unit, as many partial forward passes as the decision needs",
    guarantee="unbiased, with 95% intervals; says whether the decision is settled, and which units are open",
    paper="Maron and Moore, NIPS 1994 (racing); Cochran, 1977 (control variates); put together here",
    gradients=True,
    interventions=ALL_INTERVENTIONS,
)
def adaptive(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Single effects, measured most where half of the units part from the other half."""
    return race(state, batches, Race(seed=question.seed), question).effects


def race(start: Network | State, batches: Sequence[Batch], options: Race, question: Question | None = None) -> Verdict:
    """Measures until it is settled who goes, or `question.forward_passes` or the images are spent.

    Individual effects are not kept: units are measured on different images.

    Raises:
        InputError: no data, fewer than two images, an unknown name, or more units are to go than there are.
    """
    question = question or Question()
    state = State.of(start)
    units = chosen_units(state, question.units)
    remove = len(units) // 2 if options.remove is None else options.remove
    if not 0 <= remove <= len(units):
        raise InputError(f"{remove} of {len(units)} units are to go: give a number between")
    laboratory = Laboratory(state, batches, units, question, guess=options.prescreen, seed=options.seed)
    level = 1 - (1 - options.confidence) / (len(units) * _most_rounds(laboratory.images, options.least))
    open_, rounds, target = np.ones(len(units), dtype=bool), 0, min(options.least, laboratory.images)
    with Progress(question.progress) as bars:
        bar = bars.add("Settling who goes", len(units))
        while open_.any() and laboratory.extend(open_, target, SHORTEST if rounds else 2):
            found = laboratory.estimates()
            before, open_ = open_.sum(), _undecided(found, remove, level, options.tolerance)
            bars.advance(bar, int(before - open_.sum()))
            target, rounds = 2 * int(laboratory.measured[open_].max(initial=0)), rounds + 1
    found = laboratory.estimates()
    order = np.argsort(found.mean, kind="stable")
    names = np.array([u.name for u in units])
    effects = laboratory.effects("adaptive")
    goes = tuple(names[np.sort(order[:remove])].tolist())
    return Verdict(effects, goes, tuple(names[open_].tolist()), laboratory.measured.copy(), rounds)


def _most_rounds(images: int, least: int) -> int:
    return 1 + max(0, int(np.ceil(np.log2(images / least))))


def _undecided(found: Estimates, remove: int, level: float, tolerance: float) -> Flags:
    """(units,): whose interval reaches over the middle between the last that goes and the first that stays."""
    order = np.argsort(found.mean, kind="stable")
    if remove in (0, len(order)):
        return np.zeros(len(order), dtype=bool)
    boundary = found.mean[order[remove - 1 : remove + 1]].mean()
    goes = np.zeros(len(order), dtype=bool)
    goes[order[:remove]] = True
    low, high = found.interval(level)
    slack = tolerance * abs(boundary)
    undecided: Flags = np.where(goes, high > boundary + slack, low < boundary - slack)
    return undecided
