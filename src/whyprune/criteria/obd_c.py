"""OBD-C: half of theta' H theta for a whole filter theta, with a Kronecker-factored curvature.

Wang, Grosse, Fidler & Zhang, EigenDamage, ICML 2019, the C-OBD criterion. [P] S_cc theta_c' A theta_c / 2 with the
input covariance A = E[sum over places of a a'] and the output gradients' S = E[mean over places of g g'] (Grosse &
Martens, ICML 2016). [D] theta_c' A theta_c is E[sum over places of y_c^2] for the layer's output y_c before its bias,
so no covariance is formed. [I] Where normalisation follows, the layer is taken with it folded in; a unit that several
layers write has one number for each, which are reduced. A unit that no convolution or linear layer writes (the hidden
units of a recurrent layer) takes the same half of theta' H theta with a diagonal H, as `hessian-diagonal` has it.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from whyprune.criteria.answer import scored
from whyprune.criteria.coupled import REDUCTIONS, checked
from whyprune.criteria.curvature import probes_of, ready, scalars
from whyprune.criteria.feature_maps import by_tensor
from whyprune.criteria.hessian_diagonal import hessian_diagonal, paid_for
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.effects.outcomes import Outcome, judged
from whyprune.interventions.suffix import chosen_units
from whyprune.scoring.contract import Question, scorer
from whyprune.structure.entry import entered
from whyprune.structure.network import Network
from whyprune.structure.operations import bind, name_of
from whyprune.structure.replay import Replay, Values
from whyprune.structure.state import State
from whyprune.structure.units import Unit


def obd_c(
    start: Network | State,
    data: Iterable[Any],
    *,
    outcome: Outcome | str | None = None,
    units: Sequence[Unit | str] | None = None,
    reduction: str | None = None,
    seed: int = 0,
) -> Effects:
    """S_cc theta_c' A theta_c / 2 of every unit's filters, reduced over the layers that write it.

    Args:
        start: a traced model, or a state of it.
        data: batches; labels only if the outcome needs them.
        outcome: what harm is (default: that of `estimate`).
        units: which units (default: all that are there).
        reduction: over the layers that write a unit: `mean` (default), `sum` or `max`.
        seed: of the random directions of outcomes without a gradient of their own.

    Raises:
        InputError: there is no data, missing labels, another reduction, or an unknown unit.
    """
    state, asked = judged(start, outcome)
    chosen, combine = chosen_units(state, units), REDUCTIONS[checked(reduction)]
    batches = list(entered(data, state.network))
    asked, passes = ready(state, asked, batches)
    replay = Replay.of(state)
    damage = _damage(replay, batches, asked, seed)
    parts = by_tensor(replay, chosen, damage, state.network.written)
    scores = np.array([combine(own) if own else 0.0 for own in parts])
    images = sum(map(len, batches))
    passes += images * (1.0 + 2.0 * probes_of(asked))
    elsewhere = [k for k, own in enumerate(parts) if not own]
    if elsewhere:
        few = [chosen[k] for k in elsewhere]
        found = hessian_diagonal(state, batches, outcome=outcome, units=few, reduction=reduction, seed=seed)
        scores[elsewhere], passes = found.mean, passes + found.forward_passes
    return scored(
        state,
        chosen,
        scores,
        method="obd-c",
        samples=images,
        forward_passes=passes,
        across_groups=True,
    )


def _damage(replay: Replay, batches: Sequence[Batch], outcome: Outcome, seed: int) -> dict[fx.Node, Tensor]:
    """Layer -> one number per channel that it writes."""
    generator, probes = torch.Generator().manual_seed(seed), probes_of(outcome)
    layers = [n for n in replay.order if n in replay.network.written and channel_dimension(n) is not None]
    energy: dict[fx.Node, Tensor] = {}
    slopes: dict[fx.Node, Tensor] = {}
    for batch in batches:
        rows, outputs = _forward(replay, batch, layers)
        for node, output in outputs.items():
            own = _squares_without_bias(replay, node, output.detach())
            energy[node] = energy[node] + own if node in energy else own
        for scalar in scalars(outcome, rows, batch.labels, generator):
            found = torch.autograd.grad(scalar, list(outputs.values()), allow_unused=True, retain_graph=True)
            for node, gradient in zip(outputs, found, strict=True):
                if gradient is not None:
                    table = _by_channel(node, gradient).double().square()
                    share = table.sum(dim=1) * len(batch) / table.shape[1] / probes
                    slopes[node] = slopes[node] + share if node in slopes else share
    images = sum(map(len, batches))
    return {node: 0.5 * (slopes[node] / images) * (energy[node] / images) for node in energy if node in slopes}


def _forward(replay: Replay, batch: Batch, layers: Sequence[fx.Node]) -> tuple[Tensor, dict[fx.Node, Tensor]]:
    """The rows of a batch, and what the layers give, with the graph that leads from there to the rows."""
    values: Values = replay.inputs(batch)
    wanted, outputs = set(layers), {}
    with torch.enable_grad():
        for node in replay.order:
            values[node] = replay.step(node, values)
            if node in wanted:
                value = values[node]
                values[node] = outputs[node] = value if value.requires_grad else value.clone().requires_grad_()
        return replay.read(values), outputs


def channel_dimension(node: fx.Node) -> int | None:
    """Along which dimension of its output an affine operation writes its channels; None for any other operation."""
    name = name_of(node)
    if name == "linear":
        return -1
    return 1 if name.startswith("conv") else None


def _by_channel(node: fx.Node, value: Tensor) -> Tensor:
    """(channels, images x places)."""
    dim = channel_dimension(node)
    assert dim is not None
    return value.movedim(dim, 0).flatten(1)


def _squares_without_bias(replay: Replay, node: fx.Node, output: Tensor) -> Tensor:
    """Sums of squares over images and places of what a layer gives before its bias, (channels,)."""
    bias = None if bind(node)["bias"] is None and node not in replay.producers else replay.parameters_of(node)[1]
    table = _by_channel(node, output).double()
    return (table if bias is None else table - bias.double()[:, None]).square().sum(dim=1)


@scorer(
    "obd-c",
    kind="criterion",
    summary="half of a filter's squared length in the Kronecker-factored curvature (C-OBD)",
    estimand="score",
    cost="a few backward passes per image",
    guarantee="second order only, filters taken to be independent; no interval",
    paper="Wang et al., EigenDamage, ICML 2019",
    gradients=True,
    reduces=True,
    most_images=256,
    scaling="invariant",
    duplicates="alike",
)
def obd_c_scores(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """C-OBD scores on as many of the first images as the budget pays for."""
    return obd_c(
        state,
        paid_for(state, batches, question),
        outcome=question.outcome,
        units=question.units,
        reduction=question.reduction,
        seed=question.seed,
    )
