"""Taylor over normalisations: |sum over a unit's normalisation layers of gamma g_gamma + beta g_beta|.

Molchanov et al., Taylor-FO-BN, CVPR 2019 [P: a gate behind each normalisation; there squared, per mini-batch], and Shen
et al., HALP, NeurIPS 2022 [C: the absolute value of the sum over the layers that a shortcut couples]. It is what the
outcome changes by, to first order, when what these layers say of the channel is scaled to nothing: with z = gamma x +
beta, gamma g_gamma + beta g_beta = sum over places of g_z z. [I] The absolute value is taken image by image and
averaged, as for `taylor`: a mini-batch of one, so that the score does not depend on how images are batched. [I] A unit
without such a normalisation takes gradient times weight, the same sum at the layers that write it, w g_w + b g_b; what
no layer with a plain weight writes (the hidden units of a recurrent layer) takes gradient times activation where it is
read, as `taylor` does. Outcomes without a gradient of their own are taken along random directions of the rows, as for
`taylor`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from whyprune.criteria.answer import scored
from whyprune.criteria.bn_scale import NORMALISATIONS
from whyprune.criteria.curvature import probes_of, ready, scalars
from whyprune.criteria.feature_maps import channels_first
from whyprune.criteria.hessian_diagonal import paid_for
from whyprune.criteria.taylor import taylor
from whyprune.data.batches import Batch, chunked
from whyprune.effects.effects import Effects
from whyprune.effects.outcomes import Outcome, judged
from whyprune.interventions.suffix import chosen_units
from whyprune.scoring.contract import Question, scorer
from whyprune.structure.entry import entered
from whyprune.structure.network import Network, Reader
from whyprune.structure.operations import bind, name_of
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.units import Unit

CHUNK = 64
"""Images that run at once: all values of a pass are kept for the way back."""
Sites = Mapping[fx.Node, Reader]
"""Operation -> its own output, as something to read."""


def taylor_bn(
    start: Network | State,
    data: Iterable[Any],
    *,
    outcome: Outcome | str | None = None,
    units: Sequence[Unit | str] | None = None,
    seed: int = 0,
) -> Effects:
    """First-order scores of every unit at the normalisations that scale it; one backward pass per batch and probe.

    Args:
        start: a traced model, or a state of it.
        data: batches; labels only if the outcome needs them.
        outcome: what harm is (default `LogitShift`, of other outputs `OutputShift`; label-free).
        units: which units (default: all that are there).
        seed: of the random directions of outcomes without a gradient of their own.

    Raises:
        InputError: there is no data, missing labels, images that are mixed, or an unknown unit.
    """
    state, asked = judged(start, outcome)
    chosen = chosen_units(state, units)
    batches = chunked(entered(data, state.network), CHUNK)
    asked, passes = ready(state, asked, batches)
    normalised, written = _sites(state, normalised=True), _sites(state, normalised=False)
    terms = _terms(state, batches, asked, {**normalised, **written}, seed)
    replay, scores = Replay.of(state), np.zeros(len(chosen))
    elsewhere = []
    for place, unit in enumerate(chosen):
        own = _of_unit(replay, unit, normalised, terms) or _of_unit(replay, unit, written, terms)
        if own:
            scores[place] = float(torch.stack(own).sum(dim=0).abs().mean())
        else:
            elsewhere.append(place)
    images = sum(map(len, batches))
    passes += images * (1.0 + 2.0 * probes_of(asked))
    if elsewhere:
        found = taylor(state, batches, outcome=outcome, units=[chosen[k] for k in elsewhere], seed=seed)
        scores[elsewhere], passes = found.mean, passes + found.forward_passes
    return scored(state, chosen, scores, method="taylor-bn", samples=images, forward_passes=passes, across_groups=True)


def _sites(state: State, *, normalised: bool) -> dict[fx.Node, Reader]:
    """The operations that scale channels of units by a weight: normalisations, or all other layers that write them."""
    network, found = state.network, {}
    coupled = {piece.parameter for unit in network.units for piece in unit.slices}
    labels = np.array([unit.label for unit in network.units])
    for node in network.graph.operations:
        weight = bind(node).get("weight")
        name = network.graph.state_names.get(weight.name) if isinstance(weight, fx.Node) else None
        if name not in coupled or (name_of(node) in NORMALISATIONS) is not normalised:
            continue
        lie = next(((d, own) for d, own in network.extents.get(node, ()) if np.isin(own, labels).any()), None)
        if lie is not None:
            found[node] = Reader(node, node, *lie)
    return found


def _terms(state: State, batches: Sequence[Batch], outcome: Outcome, sites: Sites, seed: int) -> dict[fx.Node, Tensor]:
    """Operation -> (probes x images, channels): gradient times value, summed over places."""
    generator, replay = torch.Generator().manual_seed(seed), Replay.of(state)
    order = [node for node in replay.order if node in sites]
    parts: dict[fx.Node, list[Tensor]] = {node: [] for node in order}
    for batch in batches:
        with torch.enable_grad():
            values = _run(replay, batch, sites)
            rows = replay.read(values)
            if not rows.requires_grad:  # nothing with a weight of its own is on the way to the rows
                return {}
            for scalar in scalars(outcome, rows, batch.labels, generator):
                found = torch.autograd.grad(scalar, [values[n] for n in order], retain_graph=True, allow_unused=True)
                for node, gradient in zip(order, found, strict=True):
                    value = values[node].detach()
                    term = torch.zeros_like(value) if gradient is None else gradient * value
                    first = channels_first(state, term, sites[node], len(batch))
                    parts[node].append(first.double().flatten(2).sum(dim=2) if first.dim() > 2 else first.double())
    return {node: torch.cat(found) for node, found in parts.items() if found}


def _run(replay: Replay, batch: Batch, sites: Sites) -> dict[fx.Node, Any]:
    """All values of a pass, with a graph from the first of `sites` on."""
    values = replay.inputs(batch)
    for node in replay.order:
        value = replay.step(node, values)
        values[node] = value.detach().requires_grad_() if node in sites and not value.requires_grad else value
    return values


def _of_unit(replay: Replay, unit: Unit, sites: Sites, terms: Mapping[fx.Node, Tensor]) -> list[Tensor]:
    """What every site says of a unit, image by image."""
    places = {node: replay.positions(sites[node].labels, [unit]) for node in sites if node in terms}
    return [terms[node][:, at].sum(dim=1) for node, at in places.items() if len(at)]


@scorer(
    "taylor-bn",
    kind="criterion",
    summary="gradient times value behind the normalisations that scale a unit (Taylor-FO-BN, HALP)",
    estimand="score",
    cost="a few backward passes per image",
    guarantee="first order only; no interval",
    paper="Molchanov et al., CVPR 2019; Shen et al., NeurIPS 2022",
    gradients=True,
    most_images=0,
)
def taylor_bn_scores(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """First-order scores at normalisations, on as many of the first images as the budget pays for."""
    batches = paid_for(state, batches, question)
    return taylor_bn(state, batches, outcome=question.outcome, units=question.units, seed=question.seed)
