"""BN scale: how far the normalisation behind a layer scales a channel, |gamma|.

Liu et al., network slimming, ICCV 2017. [P] |gamma| ranks channels over the whole network, after training with an L1
penalty on gamma (penalty `bn-l1` of `recover`). [I] A channel that several layers write has one gamma for each, which
are reduced. [I] Where no normalisation with a scale follows, the norm of the filter takes its place: it is the
scale that weight normalisation (Salimans & Kingma, 2016) would write for that layer.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import fx

from whyprune.criteria.answer import scored
from whyprune.criteria.coupled import SliceScores, along_axes, reduced
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.interventions.suffix import chosen_units
from whyprune.scoring.contract import Question, scorer
from whyprune.structure.network import Network
from whyprune.structure.operations import TRANSPOSED, bind, name_of
from whyprune.structure.state import State
from whyprune.structure.units import Unit

NORMALISATIONS = ("batch_norm", "group_norm", "instance_norm", "layer_norm")


def bn_scale(
    start: Network | State, *, units: Sequence[Unit | str] | None = None, reduction: str | None = None
) -> Effects:
    """|gamma| of every unit; of units without one, the norm of their filters.

    Args:
        start: a traced model, or a state of it.
        units: which units (default: all that are there).
        reduction: over the normalisations of one unit: `mean` (default), `sum` or `max`.

    Raises:
        InputError: another reduction, or an unknown unit.
    """
    state = State.of(start)
    chosen = chosen_units(state, units)
    scales, norms = _scales(state), _filter_norms(state)
    scores = reduced(state, chosen, scales, reduction)
    instead = reduced(state, chosen, norms, reduction)
    bare = [not any((s.parameter, s.axis) in scales for s in unit.slices) for unit in chosen]
    scores[bare] = instead[bare]
    return scored(state, chosen, scores, method="bn-scale", forward_passes=0.0, across_groups=True)


def _scales(state: State) -> SliceScores:
    parameters = dict(state.model.named_parameters())
    names = set(_named(state, NORMALISATIONS)) & parameters.keys()
    return {(name, 0): parameters[name].detach().double().abs().cpu().numpy() for name in names}


def _filter_norms(state: State) -> SliceScores:
    """Norms of the slices along the axis that a layer writes."""
    norms = along_axes(state.model.named_parameters(), lambda slices: torch.linalg.vector_norm(slices, dim=1))
    transposed = set(_named(state, TRANSPOSED))
    return {(name, axis): found for (name, axis), found in norms.items() if axis == (1 if name in transposed else 0)}


def _named(state: State, operations: Sequence[str]) -> Iterator[str]:
    """Names of the weights of all operations of these kinds."""
    graph = state.network.graph
    for node in graph.operations:
        weight = bind(node).get("weight") if name_of(node) in operations else None
        if isinstance(weight, fx.Node) and weight.name in graph.state_names:
            yield graph.state_names[weight.name]


@scorer(
    "bn-scale",
    kind="criterion",
    summary="scale of the normalisation behind the layer; the filter's norm where there is none",
    estimand="score",
    cost="none to speak of",
    guarantee="none; blind to data",
    paper="Liu et al., ICCV 2017",
    images=False,
    labels="no",
    reduces=True,
    most_images=0,
    scaling="proportional",
    duplicates="alike",
)
def bn_scale_scores(state: State, _batches: Sequence[Batch], question: Question) -> Effects:
    """|gamma| of every unit."""
    return bn_scale(state, units=question.units, reduction=question.reduction)
