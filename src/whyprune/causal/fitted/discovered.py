"""The scorer `discovery`, and graphs discovered on the network's own runs (see `discovery` for the algorithms)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from whyprune.causal.fitted.discovery import DiscoveredGraph, discover
from whyprune.causal.fitted.extra import required
from whyprune.causal.fitted.scm import affordable, held_values, joined_runs, masked_runs, plain_runs
from whyprune.causal.fitted.sites import Runs
from whyprune.causal.fitted.variables import Variables, variables
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects, from_scores
from whyprune.interventions.suffix import chosen_units
from whyprune.interventions.worlds import Worlds
from whyprune.scoring.contract import WITHOUT_CARRIED, Question, scorer
from whyprune.structure.network import Network
from whyprune.structure.state import State

Floats = NDArray[np.float64]
Regime = Literal["observational", "masked"]
Y = "outcome"
MOST = 50
IMAGES = 256


@dataclass(frozen=True)
class Search:
    """How a graph is looked for.

    Attributes:
        method: one of `whyprune.causal.fitted.discovery.ALGORITHMS`.
        regime: `observational`: runs as they are; `masked`: also runs in which parts are gone at random.
        tiers: tell the algorithm the order of sites.
        rows: masked runs; None for 32 for each part, at most 4096, or as many as the budget leaves.
        images: most images.
        most: variables beyond which units are taken together in blocks.
    """

    method: str = "pc"
    regime: Regime = "masked"
    tiers: bool = True
    rows: int | None = None
    images: int = IMAGES
    most: int = MOST


@scorer(
    "discovery",
    kind="estimator",
    summary="PC on masked runs within the order of layers, then linear adjustment on the graph it finds; at most 50 "
    "variables, beyond that blocks",
    estimand="score: size of the adjusted effect",
    cost="that of `scm`",
    guarantee="none; a unit without a path in the graph found is said to have no effect",
    paper="Zheng et al., causal-learn, JMLR 2024",
    interventions=WITHOUT_CARRIED,
    rated=True,
    extra="causal",
    libraries=("causallearn",),
    scaling="invariant",
    drawn=True,
)
def discovery(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """PC within the order of sites on masked runs, then linear adjustment on its graph.

    A unit has an effect only if the graph has a path of arrows from its part to the outcome; it is then the share of
    its part's mean times the coefficient in a regression of the outcome on the part's variables and their parents.
    A linear coefficient cannot be right for an outcome that bends: a score, the size of that effect.

    Raises:
        MissingDependencyError: the extra `causal` is not installed.
        InputError: too few images or forward passes, or the intervention `carried`.
    """
    chosen = {u.name for u in chosen_units(state, question.units)}
    worlds, every, plain, runs = observed_runs(state, batches, question, Search())
    table = np.column_stack([every.table(runs.seen), worlds.harm(runs.logits, runs.images)])
    tier = [*every.tier.tolist(), len(every.where)]
    graph = discover(table, [*every.names, Y], "pc", tier=tier, seed=question.seed)
    slopes = adjusted(graph, table, every)
    values = held_values(worlds, every)
    places = [k for k, u in enumerate(worlds.units) if u.name in chosen]
    return from_scores(
        [worlds.units[k] for k in places],
        np.array([abs((every.shares(plain, values, k) @ slopes).mean()) for k in places]),
        method="discovery",
        samples=worlds.images,
        outcome=worlds.outcome.name,
        intervention=worlds.value.value,
        given=worlds.given,
        forward_passes=worlds.forward_passes,
    )


def network_graph(start: Network | State, batches: Sequence[Batch], question: Question, how: Search) -> DiscoveredGraph:
    """What an algorithm finds among the network's variables, with the network's own wiring beside it.

    Raises:
        MissingDependencyError: the extra `causal` is not installed.
        InputError: an unknown algorithm, too few images, or numbers on which it fails.
    """
    _, every, _, runs = observed_runs(start, batches, question, how)
    tier = every.tier.tolist()
    found = discover(
        every.table(runs.seen), every.names, how.method, tier=tier if how.tiers else None, seed=question.seed
    )
    wired = np.zeros((len(tier), len(tier)), dtype=bool)
    for child, parents in enumerate(every.parents):
        wired[list(parents), child] = True
    return replace(found, tier=every.tier, wired=wired)


def observed_runs(
    start: Network | State, batches: Sequence[Batch], question: Question, how: Search
) -> tuple[Worlds, Variables, Runs, Runs]:
    """(worlds, variables, the runs without intervention, the runs to learn from)."""
    required("causallearn")
    worlds = affordable(start, batches, question, how.images)
    every = variables(worlds, how.most)
    plain = plain_runs(worlds, every)
    if how.regime == "observational":
        return worlds, every, plain, plain
    return worlds, every, plain, joined_runs(plain, masked_runs(worlds, every, question, how.rows, blocks=True))


def adjusted(graph: DiscoveredGraph, table: Floats, every: Variables) -> Floats:
    """(variables,): the outcome's slope along each, 0 where the graph has no path of arrows to the outcome.

    Args:
        graph: over the variables and, last, the outcome.
        table: (rows, variables and outcome).
        every: the variables; those of one part are moved together, and share a regression.
    """
    reach = _ancestors(graph.arrows, len(graph.names) - 1)
    slopes, owner = np.zeros(len(every.names)), np.concatenate(every.here)
    for part in range(len(every.titles)):
        own = np.flatnonzero((owner == part) & reach[:-1])
        if not len(own):
            continue
        parents = np.flatnonzero(graph.arrows[:, own[0]])
        columns = [*own.tolist(), *(p for p in parents.tolist() if p not in own and p < len(owner))]
        design = np.column_stack([np.ones(len(table)), table[:, columns]])
        slopes[own] = np.linalg.lstsq(design, table[:, -1], rcond=None)[0][1 : 1 + len(own)]
    return slopes


def _ancestors(arrows: NDArray[np.bool_], node: int) -> NDArray[np.bool_]:
    """Which variables have a path of arrows to `node`."""
    found = np.zeros(len(arrows), dtype=bool)
    todo = [node]
    while todo:
        new = np.flatnonzero(arrows[:, todo.pop()] & ~found)
        found[new] = True
        todo.extend(new.tolist())
    return found
