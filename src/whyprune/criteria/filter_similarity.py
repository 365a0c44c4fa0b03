"""Filter similarity: of the two filters of a group that are most alike, channel by channel, one goes.

Geng & Niu, FSABP, Machine Learning 2022. [A] a similarity coefficient per filter from the weight matrices, channel by
channel, a small one meaning similar. The formula is ours [I], since the paper's could not be had: the distance of
two filters is the mean over their channels c of |F_ic - F_jc| / (|F_ic| + |F_jc|), in [0, 1]; the coefficient of a
filter is the distance at which it goes, when of the closest two that are left the one of smaller norm goes. The
paper's backward order over layers is a schedule, and no part of the score.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, fx

from whyprune.criteria.answer import scored_together
from whyprune.criteria.coupled import checked
from whyprune.criteria.magnitude import magnitude
from whyprune.criteria.redundancy import ALONG, Floats, by_group, drop_distances
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.interventions.places import places_left
from whyprune.scoring.contract import Question, scorer
from whyprune.structure.network import Network
from whyprune.structure.operations import TRANSPOSED, bind, name_of
from whyprune.structure.state import State
from whyprune.structure.units import Unit, removed_indices


def filter_similarity(
    start: Network | State, *, units: Sequence[Unit | str] | None = None, reduction: str | None = None
) -> Effects:
    """The similarity coefficient of every unit, in [0, 1]; copies are at 0.

    Args:
        start: a traced model, or a state of it.
        units: which units are scored (default: all that are there); all units of a group take part.
        reduction: over the layers that write a unit: `mean` (default), `sum` or `max` of their distances.

    Raises:
        InputError: another reduction, or an unknown unit.
    """
    state = State.of(start)
    everything, norms = list(state.units), magnitude(state, order=1).mean
    filters, scores = _filters(state), np.zeros(len(state.units))
    for places in by_group(everything).values():
        own = [everything[k] for k in places]
        scores[places] = drop_distances(_distances(state, own, filters, reduction), norms[places])
    return scored_together(
        state,
        units,
        scores,
        method="filter-similarity",
        forward_passes=0.0,
        across_groups=True,
    )


def _filters(state: State) -> dict[tuple[str, int], Tensor]:
    """(weight, the axis that it writes) -> its filters, (filters, channels, places)."""
    graph, parameters = state.network.graph, dict(state.model.named_parameters())
    found = {}
    for node in graph.operations:
        weight = bind(node).get("weight")
        name = graph.state_names.get(weight.name) if isinstance(weight, fx.Node) else None
        if name in parameters and parameters[name].dim() > 1:
            axis = 1 if name_of(node) in TRANSPOSED else 0
            filters = parameters[name].detach().double().transpose(0, axis)
            found[name, axis] = filters.unsqueeze(-1).flatten(2)
    return found


def _distances(
    state: State, units: Sequence[Unit], filters: dict[tuple[str, int], Tensor], reduction: str | None
) -> Floats:
    """(units, units), reduced over the layers that write them; 1 for all pairs where none does."""
    gone, found = removed_indices(state.removed), []
    for parameter, axis in {(s.parameter, s.axis) for s in units[0].slices} & filters.keys():
        places = [places_left(s, gone) for u in units for s in u.slices if (s.parameter, s.axis) == (parameter, axis)]
        if len(places) == len(units) and len({len(at) for at in places}) == 1:
            table = filters[parameter, axis]
            found.append(channel_distances(torch.stack([table[at].flatten(0, 1) for at in places])))
    if not found:
        return np.ones((len(units), len(units))) - np.eye(len(units))
    together: Floats = ALONG[checked(reduction)](np.stack(found), axis=0)
    return together


def channel_distances(filters: Tensor) -> Floats:
    """(N, N) of filters (N, channels, places): the mean over channels of |a - b| / (|a| + |b|), 0 where both are 0."""
    norms = torch.linalg.vector_norm(filters, dim=2)
    total = torch.zeros(len(filters), len(filters), dtype=filters.dtype)
    for channel in range(filters.shape[1]):
        apart = torch.cdist(filters[:, channel], filters[:, channel], compute_mode="donot_use_mm_for_euclid_dist")
        size = norms[:, None, channel] + norms[None, :, channel]
        total += torch.where(size > 0, apart / size.clamp_min(torch.finfo(size.dtype).tiny), 0.0)
    mean: Floats = (total / filters.shape[1]).numpy()
    return mean


@scorer(
    "filter-similarity",
    kind="criterion",
    summary="how alike a filter is to the closest one that is left, channel by channel (FSABP)",
    estimand="score",
    cost="none to speak of",
    guarantee="none; blind to data",
    paper="Geng & Niu, Machine Learning 2022",
    images=False,
    labels="no",
    reduces=True,
    most_images=0,
    scaling="dependent",
    duplicates="one-first",
)
def filter_similarity_scores(state: State, _batches: Sequence[Batch], question: Question) -> Effects:
    """Similarity coefficients of every unit."""
    return filter_similarity(state, units=question.units, reduction=question.reduction)
