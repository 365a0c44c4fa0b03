"""Causal feature clusters: clusters of effect profiles, so that units stand for each other in what they do.

Feature clusters (Wu et al., Applied Sciences 2022) put units together whose maps look alike. The causal idea [I]: units
are redundant where their interventions move the outputs the same way, image by image and class by class, whatever their
maps look like; of a cluster the unit of the largest effect stays, and small effects go before large ones. It would be
wrong if, at the same budget, repair and images, clusters of raw maps left a more accurate network: then alike maps,
which a refit can replace by each other, matter more than alike effects, which are of single removals and do not add up.

Ours [I]: profiles under do(unit := 0) on up to 64 images (`causal/profiles`), as directions that weigh what the unit's
effect is; Ward's linkage of these (`scoring/clusters`), so that the squared height of a merge is in the outcome's unit
and merges of all groups are on one scale; the silhouette, weighted likewise, says how many units are distinct. Units
without any effect go first, and are no clusters.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from whyprune.causal.exact import affordable
from whyprune.causal.profiles import Profiles, effect_profiles
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects, from_scores
from whyprune.effects.outcomes import Outcome
from whyprune.interventions.suffix import chosen_units
from whyprune.scoring.clusters import clustered
from whyprune.scoring.contract import ALL_INTERVENTIONS, Question, scorer
from whyprune.structure.network import Network
from whyprune.structure.state import State
from whyprune.structure.units import Unit


def causal_feature_clusters(
    start: Network | State,
    data: Iterable[Any],
    *,
    outcome: Outcome | str | None = None,
    intervention: str | None = None,
    units: Sequence[Unit | str] | None = None,
    progress: bool = False,
) -> Effects:
    """The height at which every unit's effect profile merges into a cluster that another one stands for.

    Args:
        start: a traced model, or a state of it.
        data: batches; labels are not used.
        outcome: whose directions profiles are in (see `effect_profiles`).
        intervention: `zero` (default), `mean`, `optimal`, `closed-form`, `resample` or `carried`.
        units: which units are scored (default: all that are there); all units of their groups take part.
        progress: show a progress bar.

    Returns:
        Scores, whose squares are in the outcome's unit, with the number of clusters that the silhouette chooses as
        `natural_widths`.

    Raises:
        InputError: there is no data, an unknown unit, or a network that mixes images.
    """
    state = State.of(start)
    chosen = chosen_units(state, units)
    found = effect_profiles(
        state,
        data,
        outcome=outcome,
        intervention=intervention,
        units=_whole_groups(state, chosen),
        progress=progress,
    )
    scores, widths = _heights(found)
    return from_scores(
        chosen,
        [scores[unit.name] for unit in chosen],
        method="causal-feature-clusters",
        samples=found.images,
        outcome=found.outcome,
        intervention=found.intervention,
        given=tuple(unit.name for unit in state.removed),
        forward_passes=found.forward_passes,
        across_groups=True,
        natural_widths=widths,
    )


def _whole_groups(state: State, units: Sequence[Unit]) -> list[Unit]:
    """All units that are still there of the groups of these."""
    groups = {unit.group for unit in units}
    return [unit for unit in state.units if unit.group in groups]


def _heights(profiles: Profiles) -> tuple[dict[str, float], dict[str, int]]:
    """Unit -> the height at which it goes, and group -> how many clusters there are."""
    groups, effects = np.array([unit.group for unit in profiles.units]), profiles.effects
    scores: dict[str, float] = {}
    widths: dict[str, int] = {}
    for name in dict.fromkeys(groups.tolist()):
        places = np.flatnonzero(groups == name)
        heights, widths[name] = clustered(profiles.vectors[places].astype(np.float64), effects[places])
        scores.update((profiles.units[k].name, float(h)) for k, h in zip(places, heights, strict=True))
    return scores, widths


@scorer(
    "causal-feature-clusters",
    kind="criterion",
    summary="the height at which a unit's effect profile (per image and class) merges into that of another unit",
    estimand="score",
    cost="that of exact effects: one partial forward pass per unit and image",
    guarantee="profiles are measured; their mean squared length is the unit's exact effect",
    paper="after Wu et al., Applied Sciences 2022",
    labels="no",
    interventions=ALL_INTERVENTIONS,
    natural_widths=True,
    most_images=64,
    scaling="invariant",
    duplicates="one-first",
)
def causal_feature_clusters_scores(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Merge heights on as many of the first images as the budget pays for."""
    measured = _whole_groups(state, chosen_units(state, question.units))
    return causal_feature_clusters(
        state,
        affordable(state, measured, batches, question),
        outcome=question.outcome,
        intervention=question.intervention,
        units=question.units,
        progress=question.progress,
    )
