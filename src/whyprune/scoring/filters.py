"""How alike the filters of a group are, from weights alone.

[A] Geng & Niu (FSABP, Machine Learning 2022) compare filters channel by channel. The formula is ours [I], since the
paper's could not be had: the mean over their channels c of |F_ic - F_jc| / (|F_ic| + |F_jc|), in [0, 1].
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from whyprune.interventions.places import places_left
from whyprune.structure.operations import TRANSPOSED, bind, name_of
from whyprune.structure.state import State
from whyprune.structure.units import Unit, removed_indices

Floats = NDArray[np.float64]


def filters_of(state: State) -> dict[tuple[str, int], Tensor]:
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


def filter_distances(
    state: State,
    units: Sequence[Unit],
    filters: dict[tuple[str, int], Tensor],
    along: Callable[..., Floats] = np.mean,
) -> Floats:
    """Distances (units, units) of one group's units, in [0, 1]; 1 for all pairs where no layer writes them.

    Args:
        state: the network as it stands.
        units: of one group.
        filters: of that state (see `filters_of`).
        along: what makes one distance of those in the layers that write the units, along the first axis.
    """
    gone, found = removed_indices(state.removed), []
    written = {(s.parameter, s.axis) for s in units[0].slices}
    for (parameter, axis), table in filters.items():  # in their order: a set has another one in every process
        if (parameter, axis) not in written:
            continue
        places = [places_left(s, gone) for u in units for s in u.slices if (s.parameter, s.axis) == (parameter, axis)]
        if len(places) == len(units) and len({len(at) for at in places}) == 1:
            found.append(channel_distances(torch.stack([table[at].flatten(0, 1) for at in places])))
    if not found:
        return np.ones((len(units), len(units))) - np.eye(len(units))
    together: Floats = along(np.stack(found), axis=0)
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
