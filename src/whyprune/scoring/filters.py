"""How alike the filters of a group are, from weights alone.

[A] Geng & Niu (FSABP, Machine Learning 2022) compare filters channel by channel. The formula is ours [I], since the
paper's could not be had: the mean over their channels c of |F_ic - F_jc| / (|F_ic| + |F_jc|), in [0, 1].
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from whyprune.interventions.places import Indices, places_left
from whyprune.structure.operations import TRANSPOSED, bind, name_of
from whyprune.structure.products import RECURRENT
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.units import Unit, removed_indices

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Filters:
    """The filters of one weight.

    Attributes:
        table: (filters, channels, places), float64.
        rows: unit name -> its filters in the table.
    """

    table: Tensor
    rows: Mapping[str, Indices]


def filters_of(state: State) -> list[Filters]:
    """Of every weight that writes units: also of those computed from parameters, and of gates of recurrent layers."""
    graph, parameters = state.network.graph, dict(state.model.named_parameters())
    replay, lying, found = Replay.of(state), _lying(state), dict[tuple[str, int], Filters]()
    for node in graph.operations:
        axis = 1 if name_of(node) in TRANSPOSED else 0
        for weight in _weights(node):
            name = graph.state_names.get(weight.name)
            if name in parameters and parameters[name].dim() > 1:
                found[name, axis] = Filters(_table(parameters[name], axis), lying.get((name, axis), {}))
            elif name is None and node in state.network.written and replay.is_fixed(weight):
                table, labels = _table(replay.bound(weight), axis), state.network.written[node]
                rows = {u.name: replay.positions(labels, [u]).numpy() for u in state.units if u.label in labels}
                if sum(map(len, rows.values())) <= len(table):
                    found[weight.name, axis] = Filters(table, rows)
    return list(found.values())


def _weights(node: fx.Node) -> list[fx.Node]:
    """The weights by which an operation writes channels."""
    bound, name = bind(node), name_of(node)
    if name in RECURRENT:
        return [weight for weight in bound["params"] if isinstance(weight, fx.Node)]
    weights = [bound.get(each) for each in (("w_ih", "w_hh") if name.endswith("_cell") else ("weight",))]
    return [weight for weight in weights if isinstance(weight, fx.Node)]


def _table(weight: Tensor, axis: int) -> Tensor:
    return weight.detach().double().transpose(0, axis).unsqueeze(-1).flatten(2)


def _lying(state: State) -> dict[tuple[str, int], dict[str, Indices]]:
    """(weight, axis) -> unit name -> where its slices lie in what is left of the weight."""
    gone, found = removed_indices(state.removed), dict[tuple[str, int], dict[str, Indices]]()
    for unit in state.units:
        for piece in unit.slices:
            rows, places = found.setdefault((piece.parameter, piece.axis), {}), places_left(piece, gone)
            rows[unit.name] = np.concatenate([rows[unit.name], places]) if unit.name in rows else places
    return found


def filter_distances(
    units: Sequence[Unit], filters: Sequence[Filters], along: Callable[..., Floats] = np.mean
) -> Floats:
    """Distances (units, units) of one group's units, in [0, 1]; 1 for all pairs where no layer writes them.

    Args:
        units: of one group.
        filters: of the network as it stands (see `filters_of`).
        along: what makes one distance of those in the layers that write the units, along the first axis.
    """
    found = []
    for own in filters:  # in the network's order, so that sums are the same in every process
        places = [own.rows[u.name] for u in units if u.name in own.rows]
        if len(places) == len(units) and len({len(at) for at in places}) == 1:
            found.append(channel_distances(torch.stack([own.table[at].flatten(0, 1) for at in places])))
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
