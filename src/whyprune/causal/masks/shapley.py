"""Shapley values of units: what each adds to the harm when units go one by one, averaged over all orders.

The game of Ghorbani and Zou ("Neuron Shapley", NeurIPS 2020) [P], played for harm: v(S) = E[Y(do S := v)] - E[Y], so
that a unit's value is E over orders of v(units before it, and it) - v(units before it). All values sum to v(all units).

[P] Random orders; an order is cut off when the harm has saturated; units race: only those whose empirical-Bernstein
    interval, mean ± (sqrt(2 V ln(2/d) / n) + 7 R ln(2/d) / (3 (n - 1))), still holds the boundary of the k-th place
    are sampled on.
[I] Each order comes with its reverse (antithetic: who comes early in one comes late in the other), and each pair has
    an image of its own, on which all differences are taken: pairs are independent, which gives intervals from the
    spread over pairs. Where images are fewer than pairs, the pairs on one image count as one observation.
[I] Saturated: v is within `tolerance` of v(all) on the pair's image for `patience` sets in a row. The order then goes
    on with probability `survival` only, and what it still finds counts 1 / `survival` times: cheaper, and not biased.
    With `survival` 0 it is the paper's truncation, and the rest counts 0: biased, so the result says `approximate`.
[I] The paper takes R for the range of the outcome; harm has none, so R is the range seen: the race's verdicts are
    no guarantees, and only the final intervals are claims.
[I] Units that need no more samples go in between without being looked at: an order costs one run for each unit still
    open, or two if its predecessor needs none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whyprune.causal.masks.random_masks import Answers
from whyprune.data.batches import Batch, cut_images
from whyprune.effects.effects import Effects
from whyprune.effects.intervals import by_cluster, moments, skew_corrected
from whyprune.errors import InputError
from whyprune.interventions.suffix import chosen_units, plain_cost
from whyprune.interventions.worlds import Worlds
from whyprune.progress import Progress
from whyprune.scoring.contract import ALL_INTERVENTIONS, Question, scorer
from whyprune.structure.network import Network
from whyprune.structure.state import State

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]
BLOCK = 64


@dataclass(frozen=True)
class Orders:
    """How orders are drawn, cut off and stopped.

    Attributes:
        pairs: most pairs of an order and its reverse; each takes the next image, and starts over when all had a turn.
        least: pairs that every unit gets before the race begins.
        remove: how many units are to go: the race is about who is among them; None for half, 0 for no race.
        confidence: of each interval of the race.
        tolerance: v is saturated this close to v(all), relatively; 0 for no truncation.
        patience: sets in a row that must be so.
        survival: probability that a saturated order goes on.
        seed: of orders, images and survival.
    """

    pairs: int = 256
    least: int = 64
    remove: int | None = None
    confidence: float = 0.95
    tolerance: float = 0.05
    patience: int = 5
    survival: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pairs < 2:
            raise InputError(f"{self.pairs} pair(s) of orders: at least 2 are needed for a standard error")
        if not 0 <= self.survival <= 1 or not 0 < self.confidence < 1 or self.tolerance < 0:
            raise InputError(
                f"survival {self.survival:g}, confidence {self.confidence:g}, tolerance {self.tolerance:g}: give "
                "probabilities and a tolerance of at least 0"
            )


@dataclass(frozen=True)
class Play:
    """What the orders showed.

    Attributes:
        values: (pairs, units), the mean marginal effect in an order and its reverse; NaN where it was not looked at.
        images: (pairs,), the image of each pair.
        truncated: whether any order was cut off without a chance to go on.
    """

    values: Floats
    images: Numbers
    truncated: bool


@scorer(
    "shapley",
    kind="estimator",
    summary="units go one by one in random orders, each order with its reverse; units whose place is settled are "
    "looked at no more",
    estimand="Shapley value for harm",
    cost="up to 2 forward passes per unit and image, on 256 images",
    guarantee="unbiased, with 95% intervals; values share out the effect of all units; who is settled is decided by "
    "the range of effects seen, without a guarantee",
    paper="Ghorbani and Zou, Neuron Shapley, NeurIPS 2020",
    interventions=ALL_INTERVENTIONS,
    scaling="invariant",
    duplicates="alike",
    drawn=True,
)
def shapley(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """As many pairs of orders as the budget allows, 256 or one per image without one."""
    pairs = min(Orders.pairs, sum(map(len, batches)))
    units = len(state.units)
    if question.forward_passes is not None:
        of_pair = 1 + int(plain_cost(state)) + 2 * min(units, 2 * len(chosen_units(state, question.units)))
        pairs = min(pairs, int(question.forward_passes // of_pair))
        if pairs < 2:
            raise InputError(
                f"{question.forward_passes:g} forward passes do not pay for two pairs of orders: "
                f"give at least {2 * of_pair}"
            )
        batches = cut_images(batches, pairs)[0]
    return shapley_values(state, batches, Orders(pairs=max(pairs, 2), seed=question.seed), question)


def shapley_values(
    start: Network | State, batches: Sequence[Batch], orders: Orders, question: Question | None = None
) -> Effects:
    """Shapley values with options of one's own; `question` gives outcome, intervention, units and progress.

    Raises:
        InputError: no data, fewer than two images, an unknown name.
    """
    question = question or Question()
    chosen = chosen_units(start, question.units)
    worlds = Worlds(start, batches, outcome=question.outcome, intervention=question.intervention)
    wanted = np.isin([u.name for u in worlds.units], [u.name for u in chosen])
    played = play(worlds, orders, wanted, progress=question.progress)
    mean, error, skewness, samples = moments(by_cluster(played.values[:, wanted], played.images))
    return Effects(
        units=tuple(u.name for u in chosen),
        groups=tuple(u.group for u in chosen),
        mean=mean,
        standard_error=error,
        samples=int(samples.min()),
        outcome=worlds.outcome.name,
        intervention=worlds.value.value,
        estimand="shapley",
        method="shapley",
        given=worlds.given,
        forward_passes=worlds.forward_passes,
        approximate=played.truncated,
        bounds=skew_corrected(mean, error, skewness, samples),
    )


def play(worlds: Answers, orders: Orders, wanted: Flags | None = None, *, progress: bool = False) -> Play:
    """Draws orders, block by block, until all pairs are played or the race is over.

    Args:
        worlds: the network; all of its units play.
        orders: how.
        wanted: (units,), whose values are asked for; default: all.
        progress: show a progress bar.

    Raises:
        InputError: there are fewer than two images, or more units are to go than there are.
    """
    count = len(worlds.units)
    wanted = np.ones(count, dtype=bool) if wanted is None else wanted
    remove = int(wanted.sum()) // 2 if orders.remove is None else orders.remove
    if worlds.images < 2:
        raise InputError(f"{worlds.images} image(s) of data: at least 2 are needed for a standard error")
    if not 0 <= remove <= wanted.sum():
        raise InputError(f"{remove} of {wanted.sum()} units are to go: give a number between")
    rng = np.random.default_rng(orders.seed)
    images = np.resize(rng.permutation(worlds.images), orders.pairs)
    values = np.full((orders.pairs, count), np.nan)
    open_, played, truncated = wanted.copy(), 0, False
    with Progress(progress) as bars:
        bar = bars.add("Playing orders of units", orders.pairs)
        while played < orders.pairs and open_.any():
            block = slice(played, min(played + BLOCK, orders.pairs))
            values[block], cut = _walk(worlds, images[block], open_, orders, rng)
            truncated |= cut
            bars.advance(bar, block.stop - block.start)
            played = block.stop
            if remove and played >= orders.least:
                open_ = wanted & _undecided(values[:played], wanted, remove, orders.confidence)
    return Play(values[:played], images[:played], truncated)


def _walk(
    worlds: Answers, images: Numbers, open_: Flags, orders: Orders, rng: np.random.Generator
) -> tuple[Floats, bool]:
    """(pairs, units): one order and its reverse on each image; and whether any was cut off for good."""
    pairs, count = len(images), len(open_)
    forward = rng.permuted(np.tile(np.arange(count), (pairs, 1)), axis=1)
    walk = _Walk(np.concatenate([forward, forward[:, ::-1]]), np.concatenate([images, images]))
    survives = rng.random(2 * pairs) < orders.survival
    if orders.tolerance:
        walk.whole[:] = np.tile(worlds.effects(np.ones((pairs, count), dtype=bool), images), 2)
    found = np.where(open_, 0.0, np.nan) * np.ones((2 * pairs, 1))
    for unit in walk.order.T:
        look = np.flatnonzero(walk.alive & open_[unit])
        if len(look):
            found[look, unit[look]] = walk.marginal(worlds, look, unit[look])
            if orders.tolerance:
                walk.cut_off(look, survives, orders)
        walk.pass_by(look, unit)
    return (found[:pairs] + found[pairs:]) / 2, bool(orders.survival == 0 and not walk.alive.all())


class _Walk:
    """Many orders at once, one unit further at a time.

    Attributes:
        order: (rows, units).
        images: (rows,).
        gone: (rows, units), the set of each row so far.
        value: (rows,), its harm, where `known`.
        whole: (rows,), the harm of all units.
        weight: (rows,), what a marginal effect counts.
        alive: (rows,), whether the order goes on.
    """

    def __init__(self, order: Numbers, images: Numbers) -> None:
        rows, units = order.shape
        self.order, self.images = order, images
        self.gone = np.zeros((rows, units), dtype=bool)
        self.value, self.whole, self.weight = np.zeros(rows), np.zeros(rows), np.ones(rows)
        self.known, self.alive, self.tossed = np.ones(rows, dtype=bool), np.ones(rows, dtype=bool), np.zeros(rows, bool)
        self.streak = np.zeros(rows, dtype=np.int64)

    def marginal(self, worlds: Answers, look: Numbers, unit: Numbers) -> Floats:
        """Weighted marginal effect of `unit` in the rows `look`."""
        before = look[~self.known[look]]
        after = self.gone[look]
        after[np.arange(len(look)), unit] = True
        masks = np.concatenate([self.gone[before], after])
        answers = worlds.effects(masks, self.images[np.concatenate([before, look])])
        self.value[before], now = answers[: len(before)], answers[len(before) :]
        found: Floats = self.weight[look] * (now - self.value[look])
        self.value[look] = now
        return found

    def cut_off(self, look: Numbers, survives: Flags, orders: Orders) -> None:
        """Ends rows whose harm has saturated, but for the survivors, which count for the others too."""
        close = np.abs(self.value - self.whole) <= orders.tolerance * np.abs(self.whole)
        self.streak[look] = np.where(close[look], self.streak[look] + 1, 0)
        saturated = ~self.tossed & (self.streak >= orders.patience)
        self.tossed |= saturated
        self.alive &= ~saturated | survives
        self.weight[saturated & survives] /= max(orders.survival, 1e-12)

    def pass_by(self, look: Numbers, unit: Numbers) -> None:
        """The unit of every row is gone; the value is known only where it was looked at."""
        self.known[:] = False
        self.known[look] = True
        self.gone[np.arange(len(unit)), unit] = True


def _undecided(values: Floats, wanted: Flags, remove: int, confidence: float) -> Flags:
    """(units,): whose interval holds the middle between the last that goes and the first that stays."""
    mean, error, _, count = moments(values)
    ranked = np.sort(mean[wanted])
    if remove == len(ranked):
        return np.zeros_like(wanted)
    boundary = (ranked[remove - 1] + ranked[remove]) / 2
    known = ~np.isnan(values)
    spread = values.max(0, where=known, initial=-np.inf) - values.min(0, where=known, initial=np.inf)
    log = np.log(2 / (1 - confidence))
    radius = error * np.sqrt(2 * log) + 7 * spread * log / (3 * np.maximum(count - 1, 1))
    undecided: Flags = np.abs(mean - boundary) <= radius  # units never wanted have no spread: -inf
    return undecided
