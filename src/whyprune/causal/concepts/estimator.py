"""Concepts of a network, their expected causal effects, and scores of filters (`concepts`).

Harradon, Druce & Ruttenberg (2018, arXiv 1802.00541): autoencoders per layer, a Bayesian network over their codes and
the class fitted on intervened runs, expected causal effects [P; see `autoencoder`, `codes`, `bayes`]. [I] The scores:
importance of unit f = sum over layers and codes k of |ECE_k| ||dE_k/da_f||, the derivative in units of the code's size
(times rms a_f / rms c_k), so that it does not depend on how a code is scaled.

It claims no effect of a unit, and no comparison between layers: the Bayesian network sees more of what lies near the
output, so scores rank units within a layer at best. A code is a mixture: a unit that is only correlated with what
matters gets a share of its code's effect, and a unit that the autoencoder leaves out gets none. `agreement` says how
much of the network the codes hold: where it is low, effects of codes say little.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from whyprune.causal.concepts.autoencoder import Autoencoder, Layer, agreement, layers, principal, train
from whyprune.causal.concepts.bayes import BayesianNetwork, parents
from whyprune.causal.concepts.bottleneck import Bottleneck, bottleneck, layer_of
from whyprune.causal.concepts.codes import measured, observed, random_runs
from whyprune.causal.concepts.design import ConceptDesign, affordable
from whyprune.data.batches import Batch, cut_images, joined
from whyprune.effects.effects import Effects, from_scores
from whyprune.errors import InputError
from whyprune.interventions.suffix import chosen_units
from whyprune.progress import Progress
from whyprune.scoring.contract import Question, scorer
from whyprune.structure.network import Network
from whyprune.structure.replay import Replay
from whyprune.structure.state import State

Floats = NDArray[np.float64]
HELD_OUT = 0.25
"""The share of images on which agreement is measured; autoencoders are not trained on them."""


@dataclass(frozen=True)
class Concepts:
    """What was learnt of a network.

    Attributes:
        state: the network.
        layers: all tensors that are read, in execution order.
        autoencoders: one per layer.
        effects: per layer the effect of every code on the class, a total variation in [0, 1].
        agreement: per layer, the share of held-out images that stay in their class when readers see decoded codes.
        model_agreement: how often the Bayesian network predicts the network's class from the last codes.
        importance: of every unit of the network; 0 for those that are gone.
        images: how many images it was learnt from.
        forward_passes: its cost in dense forward passes of one image.
    """

    state: State
    layers: tuple[Layer, ...]
    autoencoders: tuple[Autoencoder, ...]
    effects: tuple[Floats, ...]
    agreement: tuple[float, ...]
    model_agreement: float
    importance: Floats
    images: int
    forward_passes: float

    def at(self, group: str) -> int:
        """The place of a group's layer among `layers`.

        Raises:
            InputError: the group is read in several tensors.
        """
        data = layer_of(self.state, group).data
        return next(k for k, layer in enumerate(self.layers) if layer.data is data)

    def bottleneck(self, group: str, codes: int | None = None) -> Bottleneck:
        """The network with only a group's `codes` codes of largest effect (default: all of them).

        Raises:
            InputError: no bottleneck fits in front of the group's readers, or units are gone already.
        """
        if self.state.removed:
            raise InputError("bottlenecks are put into the network as it was traced: explain the network itself")
        place = self.at(group)
        order = np.argsort(-self.effects[place], kind="stable")[:codes]
        return bottleneck(self.state.network, group, self.autoencoders[place], order.tolist())

    @property
    def diagnostics(self) -> dict[str, float]:
        """Class agreement of the codes of every layer, and of the Bayesian network."""
        kept = {f"class agreement of {la.name}'s codes": a for la, a in zip(self.layers, self.agreement, strict=True)}
        return {**kept, "class agreement of the Bayesian network": self.model_agreement}

    def __repr__(self) -> str:
        rows = [f"{la.name}: {a:.0%}" for la, a in zip(self.layers, self.agreement, strict=True)]
        return f"Concepts(class kept by the codes read by {', '.join(rows)}; model: {self.model_agreement:.0%})"


@scorer(
    "concepts",
    kind="estimator",
    summary="few codes per layer (an autoencoder), a causal Bayesian network over them, and what each code does to the "
    "class",
    estimand="score, within a layer",
    cost="training the autoencoders, the only use of gradients, and 256 intervened runs per layer",
    guarantee="none, and only for networks that predict a class: a unit that is only correlated with what matters "
    "shares its code's effect; `effects.diagnostics` "
    "says how much of the network the codes keep",
    paper="Harradon, Druce and Ruttenberg, arXiv 1802.00541",
    labels="no",
    gradients=True,
    scaling="dependent",
    duplicates="alike",
    drawn=True,
)
def concepts(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Scores of units; the outcome is the class, the intervention on codes is zero."""
    chosen = chosen_units(state, question.units)
    found = explain(
        state, batches, forward_passes=question.forward_passes, seed=question.seed, progress=question.progress
    )
    places = [state.network.units.index(unit) for unit in chosen]
    return from_scores(
        chosen,
        found.importance[places],
        method="concepts",
        samples=found.images,
        outcome="class",
        intervention="zero",
        given=tuple(u.name for u in state.removed),
        forward_passes=found.forward_passes,
        diagnostics=found.diagnostics,
    )


def explain(
    start: Network | State,
    batches: Sequence[Batch],
    design: ConceptDesign | None = None,
    *,
    forward_passes: float | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Concepts:
    """Learns the concepts of every layer and what they do to the class.

    Args:
        start: a traced model, or a state of it.
        batches: images; labels are not needed.
        design: choices of the method.
        forward_passes: most dense forward passes of one image to spend.
        seed: of images, runs and sampling.
        progress: show a progress bar.

    Raises:
        InputError: no predicted class, fewer than 8 images, no unit, or a budget that does not suffice.
    """
    state = State.of(start)
    network, replay = state.network, Replay.of(state)
    if not network.outputs.is_logits:
        raise InputError(f"concepts explain the predicted class: {network.outputs.no_logits()}; use another method")
    every = layers(replay)
    chosen_units(state)
    if forward_passes is not None:
        batches = cut_images(batches, max(8, int(forward_passes / 4 / (2 + len(every)))))[0]
    inputs = joined(list(batches))
    if len(inputs) < 8:
        raise InputError(f"{len(inputs)} images of data: at least 8 are needed to learn concepts")
    how = affordable(design or ConceptDesign(), [la.share for la in every], len(inputs), forward_passes)
    blocks = _blocks(network, inputs)
    moments = _moments(replay, every, blocks)
    cost = float(len(inputs))
    generator = torch.Generator().manual_seed(seed)
    apart = max(1, round(HELD_OUT * len(inputs)))
    held, taught = inputs[slice(0, apart)], inputs[slice(apart, len(inputs))]
    coders, kept = [], []
    with Progress(progress) as bars:
        bar = bars.add("Learning concepts", 2 * len(every))
        for layer in every:
            first = principal(moments[layer.data], how.codes(len(moments[layer.data])))
            coder, spent = train(replay, layer, taught, first, how, generator)
            coders.append(coder)
            kept.append(agreement(replay, layer, _blocks(network, held), coder))
            cost += spent + apart * (1 + layer.share)
            bars.advance(bar)
        coded = list(zip(every, coders, strict=True))
        plain = observed(replay, coded, blocks, len(inputs))
        runs, rng = plain, np.random.default_rng(seed)
        cost += len(inputs)
        direct: list[Floats] = []
        for at, layer in enumerate(every):
            runs = runs.joined(random_runs(replay, coded, at, inputs, plain, how, rng))
            cost += how.runs * (1 + layer.share)
            if how.effects == "measured":
                direct.append(measured(replay, coded, at, inputs, plain))
                cost += len(inputs) * len(direct[-1])
            bars.advance(bar)
    model = BayesianNetwork(parents(replay, every), plain, runs, how, seed)
    effects = direct if direct else [model.expected_effects(k) for k in range(len(every))]
    return Concepts(
        state=state,
        layers=tuple(every),
        autoencoders=tuple(coders),
        effects=tuple(effects),
        agreement=tuple(kept),
        model_agreement=model.agreement(),
        importance=_importance(replay, every, coders, effects, moments),
        images=len(inputs),
        forward_passes=cost,
    )


def _importance(
    replay: Replay,
    every: Sequence[Layer],
    coders: Sequence[Autoencoder],
    effects: Sequence[Floats],
    moments: Mapping[fx.Node, Tensor],
) -> Floats:
    """Sum over layers and codes of |effect| times the size of the unit's part in the code, per unit."""
    place = {unit.label: k for k, unit in enumerate(replay.network.units)}
    found = np.zeros(len(place))
    for layer, coder, effect in zip(every, coders, effects, strict=True):
        second = moments[layer.data]
        weight = coder.encoder.double()
        size = torch.einsum("kc,cd,kd->k", weight, second, weight).clamp_min(0).sqrt()
        part = (weight * second.diagonal().clamp_min(0).sqrt()).square() / size.square().clamp_min(1e-24)[:, None]
        squares = np.zeros((len(effect), len(place)))
        there = [label for label in layer.readers[0].labels.tolist() if label not in replay.gone]
        for channel, label in enumerate(there):
            if label in place:
                squares[:, place[label]] += part[:, channel].numpy()
        found += np.abs(effect) @ np.sqrt(squares)
    return found


def _moments(replay: Replay, every: Sequence[Layer], blocks: Sequence[Batch]) -> dict[fx.Node, Tensor]:
    """E[a a'] over images and places of every layer, (channels, channels), in double precision."""
    total: dict[fx.Node, Tensor] = {}
    count: dict[fx.Node, int] = {}
    for batch in blocks:
        values = replay.run(batch, keep={layer.data for layer in every})
        for layer in every:
            rows = values[layer.data].movedim(layer.dim, -1).flatten(0, -2).double()
            total[layer.data] = total.get(layer.data, 0) + rows.T @ rows
            count[layer.data] = count.get(layer.data, 0) + len(rows)
    return {node: total[node] / count[node] for node in total}


def _blocks(network: Network, inputs: Batch) -> list[Batch]:
    """The images in blocks that the network runs on; repeated where it runs on one batch size only."""
    size = network.graph.batch_size
    if size is None:
        return [inputs[slice(k, k + 128)] for k in range(0, len(inputs), 128)]
    numbers = np.resize(np.arange(len(inputs)), -(-len(inputs) // size) * size)
    return [inputs[torch.from_numpy(part)] for part in numbers.reshape(-1, size)]
