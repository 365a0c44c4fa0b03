"""Single effects for the report, within a stated number of forward passes: what is not paid for is not measured."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from whyprune.causal.exact import exact_effects
from whyprune.data.batches import Batch, cut_images, sample_word
from whyprune.effects.effects import Effects
from whyprune.effects.outcomes import Outcome
from whyprune.errors import InputError
from whyprune.interventions.suffix import relative_cost, suffixes
from whyprune.structure.network import Network
from whyprune.structure.replay import Replay
from whyprune.structure.units import Unit

LEAST_IMAGES = 16
"""On fewer images the intervals say little; then fewer units are measured instead."""


def single_effects(
    network: Network,
    batches: Sequence[Batch],
    removed: Sequence[str],
    *,
    passes: float,
    images: int,
    outcome: Outcome | str | None = None,
    seed: int = 0,
    progress: bool = False,
) -> tuple[Effects, str]:
    """E[Y | do(u := 0)] - E[Y] of the dense network's units, as many and on as many images as the passes pay for.

    All units are measured, on fewer images if need be; where not even `LEAST_IMAGES` can be paid for all of them, a
    random sample of each group is measured, half of it from the units that were removed.

    Args:
        network: the traced model.
        batches: images.
        removed: names of the units that the plan removes.
        passes: dense forward passes of one image to spend at most.
        images: on how many images to measure at most.
        outcome: what harm is (default `LogitShift`, of other outputs `OutputShift`).
        seed: of the sample.
        progress: show a progress bar.

    Returns:
        Effects of all units, NaN where one was not measured, and a sentence about what was; empty if all were, on all
        images.
    """
    try:
        network.check_images_apart()
    except InputError as error:
        return _unmeasured(network, outcome), f"Single effects were not measured: {error}."
    replay = Replay(network)
    share = relative_cost(network, suffixes(replay, network.units))
    total = min(images, sum(map(len, batches)))
    paid = int(passes / (1 + share * len(network.units)))
    if paid >= min(total, LEAST_IMAGES):
        chosen: Sequence[Unit] = network.units
        count = min(total, paid)
    else:
        count = min(total, LEAST_IMAGES)
        chosen = _affordable(network, replay, set(removed), passes / max(count, 1), seed)
    said = ""
    if count < total or len(chosen) < len(network.units):
        said = (
            f"Single effects were measured of {len(chosen):,} of {len(network.units):,} units on {count} "
            f"{sample_word(batches[0])}: as much as {passes:,.0f} forward passes pay for (effect_passes)."
        )
    if not chosen or count < 2:
        return _unmeasured(network, outcome), said or "Single effects were not measured: no passes were given for them."
    found = exact_effects(network, cut_images(batches, count)[0], outcome=outcome, units=chosen, progress=progress)
    return _spread(network, found), said


def _affordable(network: Network, replay: Replay, removed: set[str], passes: float, seed: int) -> list[Unit]:
    """A sample of units that so many passes per image pay for; groups near the input cost more than others."""
    wanted = len(network.units)
    while wanted := wanted * 9 // 10:
        chosen = _sample(network, removed, wanted, seed)
        if chosen and 1 + relative_cost(network, suffixes(replay, chosen)) * len(chosen) <= passes:
            return chosen
    return []


def _sample(network: Network, removed: set[str], count: int, seed: int) -> list[Unit]:
    """About so many units, in the network's order: of each group its share, half of those from what was removed."""
    rng = np.random.default_rng(seed)
    names: set[str] = set()
    for group in network.groups:
        gone = [u.name for u in group.units if u.name in removed]
        kept = [u.name for u in group.units if u.name not in removed]
        wanted = count * len(group.units) // max(len(network.units), 1)
        of_gone = min(len(gone), max(wanted // 2, wanted - len(kept)))
        names.update(rng.choice(gone, of_gone, replace=False).tolist() if of_gone else ())
        of_kept = min(len(kept), wanted - of_gone)
        names.update(rng.choice(kept, of_kept, replace=False).tolist() if of_kept else ())
    return [unit for unit in network.units if unit.name in names]


def _spread(network: Network, found: Effects) -> Effects:
    """The same effects among all units, NaN for the others."""
    place = {unit.name: k for k, unit in enumerate(network.units)}
    rows = np.array([place[name] for name in found.units])

    def full(values: np.ndarray) -> np.ndarray:
        spread = np.full(len(place), np.nan)
        spread[rows] = values
        return spread

    bounds = None if found.bounds is None else (full(found.bounds[0]), full(found.bounds[1]))
    return replace(
        found,
        units=tuple(u.name for u in network.units),
        groups=tuple(u.group for u in network.units),
        mean=full(found.mean),
        standard_error=full(found.standard_error),
        bounds=bounds,
        per_image=None,
    )


def _unmeasured(network: Network, outcome: Outcome | str | None) -> Effects:
    nothing = np.full(len(network.units), np.nan)
    name = outcome if isinstance(outcome, str) else "logit-shift" if outcome is None else outcome.name
    return Effects(
        units=tuple(u.name for u in network.units),
        groups=tuple(u.group for u in network.units),
        mean=nothing,
        standard_error=nothing,
        samples=0,
        outcome=name,
        intervention="zero",
        estimand="single",
        method="exact",
    )
