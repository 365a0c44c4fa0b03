"""`scm`: the influence of units by counterfactuals in structural equations that were fitted to the network's runs.

Narendra et al. 2018, arXiv:1811.04376 (see `structural`). [P] equations fitted to runs without intervention, linear.
[I] boosted trees, and equations fitted to runs under random masks, each unit being gone with probability `rate`.

What it does not claim: fitted to runs without intervention, equations only see which units go together, and every
unit depends on the image. A bystander that no layer uses then has as much influence as the unit it resembles. With
random masks that confounding is broken, but a mean over places is still not the map: the error does not shrink with
more images, and nobody knows its size. So no interval is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from whyprune.causal.fitted.sites import Runs, watch
from whyprune.causal.fitted.structural import Mechanism, StructuralModel, fit_structural
from whyprune.causal.fitted.variables import Variables, variables
from whyprune.data.batches import Batch, cut_images
from whyprune.effects.effects import Effects, from_samples
from whyprune.effects.output_shift import OutputShift
from whyprune.errors import InputError
from whyprune.interventions.suffix import chosen_units
from whyprune.interventions.worlds import Worlds
from whyprune.scoring.contract import WITHOUT_CARRIED, Question, scorer
from whyprune.structure.network import Network
from whyprune.structure.state import State

Floats = NDArray[np.float64]
Regime = Literal["observational", "masked"]
RATE = 0.1
MOST_NUMBERS = 2**26
"""Of outputs that are held at a time."""


@dataclass(frozen=True)
class Equations:
    """How structural equations are fitted.

    Attributes:
        mechanism: `linear` or `trees`.
        regime: `observational`: runs as they are; `masked`: also runs in which units are gone at random.
        rows: masked runs; None for 32 for each unit, at most 4096.
        images: most images on which influence is asked for.
        most: variables beyond which units are taken together in blocks.
    """

    mechanism: Mechanism = "trees"
    regime: Regime = "masked"
    rows: int | None = None
    images: int = 256
    most: int = 400

    def __post_init__(self) -> None:
        for name, value, known in (
            ("mechanism", self.mechanism, get_args(Mechanism)),
            ("regime", self.regime, get_args(Regime)),
        ):
            if value not in known:
                raise InputError(f"no {name} {value!r}: choose from {', '.join(known)}")


@scorer(
    "scm",
    kind="estimator",
    summary="structural equations over what is read at each place, boosted trees fitted to runs under random masks; "
    "each unit's counterfactual",
    estimand="single effect, approximate",
    cost="one forward pass per masked run, by default 32 runs per unit, at most 4,096",
    guarantee="none, and no interval: the equations see means of maps",
    paper="Narendra et al., arXiv 1811.04376",
    interventions=WITHOUT_CARRIED,
    rated=True,
    individual=True,
    scaling="invariant",
    drawn=True,
)
def scm(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Boosted trees on randomly masked runs."""
    return structural_influence(state, batches, question, Equations())


def structural_influence(
    start: Network | State, batches: Sequence[Batch], question: Question, how: Equations
) -> Effects:
    """Counterfactual influence of every unit asked for.

    All units take part in the equations; `question.units` only chooses of which the influence is question. The budget
    `question.forward_passes` pays for images first, at most a quarter of it, then for masked runs.

    Raises:
        InputError: fewer than two images, or an intervention whose value depends on other units (`carried`).
    """
    worlds = affordable(start, batches, question, how.images)
    every = variables(worlds, how.most)
    plain = plain_runs(worlds, every)
    runs = (
        plain if how.regime == "observational" else joined_runs(plain, masked_runs(worlds, every, question, how.rows))
    )
    shift = worlds.outcome if isinstance(worlds.outcome, OutputShift) else None
    model = fit_structural(
        every,
        runs,
        mechanism=how.mechanism,
        factors=None if shift is None else shift.factors,
        centre=worlds.network.outputs.is_logits,
        seed=question.seed,
        progress=question.progress,
    )
    values = held_values(worlds, every)
    names = [u.name for u in worlds.units]
    chosen = (
        range(len(names)) if question.units is None else [k for k, n in enumerate(names) if n in set(question.units)]
    )
    per_image = _influence(worlds, model, plain, values, list(chosen))
    found = from_samples(
        [worlds.units[k] for k in chosen],
        per_image,
        keep_images=question.per_image,
        outcome=worlds.outcome.name,
        intervention=worlds.value.value,
        estimand=worlds.estimand,
        method="scm",
        given=worlds.given,
        approximate=True,
        forward_passes=worlds.forward_passes,
    )
    return replace(found, standard_error=np.full(len(found.units), np.nan), bounds=None)


def affordable(start: Network | State, batches: Sequence[Batch], question: Question, images: int) -> Worlds:
    """The network's worlds on at most so many images, and on no more than a quarter of the budget pays for.

    Raises:
        InputError: an intervention that fitted equations cannot hold, an unknown unit, fewer than two images.
    """
    if question.intervention == "carried":
        raise InputError("a fitted model cannot carry a unit by others: choose zero, mean, optimal or resample")
    if question.forward_passes is not None:
        images = min(images, int(question.forward_passes / 4))
    first = cut_images(batches, images)[0]
    if sum(map(len, first)) < 2:
        raise InputError(f"{sum(map(len, first))} image(s): at least 2 are needed; give more data or more forwards")
    if question.units is not None:
        chosen_units(start, question.units)
    return Worlds(start, first, outcome=question.outcome, intervention=question.intervention)


def plain_runs(worlds: Worlds, every: Variables) -> Runs:
    """Every image once, without intervention."""
    nothing = np.zeros((worlds.images, len(worlds.units)), dtype=bool)
    return watch(worlds, every.where, nothing, np.arange(worlds.images))


def masked_runs(worlds: Worlds, every: Variables, question: Question, rows: int | None, blocks: bool = False) -> Runs:
    """Random images under random masks: each unit (each part, if `blocks`) is gone with probability `question.rate`.

    Args:
        worlds: the network on its images.
        every: the variables to watch.
        question: for the rate (default 0.1), the seed and the budget, of which all that is left is spent.
        rows: how many; None for 32 for each part, at most 4096, or as many as the budget leaves.
        blocks: mask whole parts.
    """
    rng = np.random.default_rng(question.seed)
    rate = RATE if question.rate is None else question.rate
    count = min(4096, 32 * len(every.titles)) if rows is None else rows
    if question.forward_passes is not None:
        count = max(int(question.forward_passes - worlds.forward_passes), 2)
    count = min(count, max(MOST_NUMBERS // worlds.plain.shape[1], 256))
    columns = every.part if blocks else np.arange(len(worlds.units))
    masks = (rng.random((count, int(columns.max()) + 1)) < rate)[:, columns]
    return watch(worlds, every.where, masks, rng.integers(0, worlds.images, count))


def joined_runs(one: Runs, other: Runs) -> Runs:
    """Both, one after the other."""
    return Runs(
        np.concatenate([one.masks, other.masks]),
        np.concatenate([one.images, other.images]),
        tuple(np.concatenate(pair) for pair in zip(one.raw, other.raw, strict=True)),
        tuple(np.concatenate(pair) for pair in zip(one.seen, other.seen, strict=True)),
        torch.cat([one.logits, other.logits]),
    )


def held_values(worlds: Worlds, every: Variables) -> tuple[Floats, ...] | None:
    """Per site (images, units) the value v of do(unit := v); None for zero. It is what readers see if all are held."""
    if worlds.value.value == "zero":
        return None
    everything = np.ones((worlds.images, len(worlds.units)), dtype=bool)
    return watch(worlds, every.where, everything, np.arange(worlds.images)).seen


def _influence(
    worlds: Worlds, model: StructuralModel, plain: Runs, values: tuple[Floats, ...] | None, chosen: Sequence[int]
) -> NDArray[np.float32]:
    """(units, images): the outcome under do(unit := v) in the model, less the outcome as it is."""
    every, images = model.variables, np.arange(worlds.images)
    alone = np.bincount(every.part) == 1
    owner = np.concatenate(every.here)
    held = np.array([alone[owner] & (owner == every.part[k]) for k in chosen])
    moved = np.array([every.shares(plain, values, k) for k in chosen])
    together = max(1, MOST_NUMBERS // max(plain.logits.numel(), 1))
    found: list[Floats] = []
    for start in range(0, len(moved), together):
        logits = model.logits(plain, moved[start : start + together], held[start : start + together])
        found += [worlds.harm(z, images) - worlds.base for z in logits]
    return np.array(found, dtype=np.float32)
