"""A causal Bayesian network over binned codes and the class, and the expected causal effect of every code.

Harradon et al.: nodes are the codes of every layer and the class; parents of a code are the codes in front of it; it is
fitted on observed and intervened runs; Effect(v) = P(class | do(code = v)) - P(class), and the expected effect averages
it over the code's own distribution [P]. [I] Conditionals are classifiers instead of tables, whose size is
exponential in the parents. The expected effect takes the total variation |Effect(v)| / 2 before the average: with
signs, sum_v P(v) Effect(v) is 0 for every code that is independent of its fellows. Interventions are propagated by
sampling with the same random numbers as without intervention.

It is a model of summaries: pooling and bins lose what the network knows, and codes of one layer share the image as a
common cause, so its effects are an explanation, not measurements (`ConceptDesign(effects="measured")` measures).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from torch import fx

from whyprune.causal.concepts.autoencoder import Layer
from whyprune.causal.concepts.codes import Runs
from whyprune.causal.concepts.design import ConceptDesign
from whyprune.structure.replay import Replay

Floats = NDArray[np.float64]
Bins = NDArray[np.int64]


@dataclass(frozen=True)
class Conditional:
    """P(target | parents) of one node; a constant where there is one value only."""

    values: int
    seen: Bins
    model: Any

    def probabilities(self, features: Floats) -> Floats:
        """(rows, values)."""
        found = np.zeros((len(features), self.values))
        found[:, self.seen] = 1.0 if self.model is None else self.model.predict_proba(features)
        return found


def parents(replay: Replay, coded: Sequence[Layer]) -> tuple[tuple[int, ...], ...]:
    """For every layer, and last for the output: the layers in front of it with no other in between."""
    place = {layer.data: k for k, layer in enumerate(coded)}
    outputs = replay.network.graph.output.all_input_nodes
    return (*(_in_front(replay, replay.reads(layer.data), place) for layer in coded), _in_front(replay, outputs, place))


def _in_front(replay: Replay, start: Sequence[fx.Node], place: Mapping[fx.Node, int]) -> tuple[int, ...]:
    found, seen, waiting = set(), set(start), list(start)
    while waiting:
        node = waiting.pop()
        if node in place:
            found.add(place[node])
            continue
        fresh = [n for n in replay.reads(node) if n not in seen]
        seen.update(fresh)
        waiting.extend(fresh)
    return tuple(sorted(found))


class BayesianNetwork:
    """Fitted conditionals of all codes and the class."""

    def __init__(
        self, graph: Sequence[tuple[int, ...]], plain: Runs, runs: Runs, design: ConceptDesign, seed: int
    ) -> None:
        """Fits every node.

        Args:
            graph: parents of every layer, the output last.
            plain: runs of the network as it is; they give the bins.
            runs: all runs to fit on.
            design: bins and model.
            seed: of the models and of sampling.
        """
        self.graph = graph
        self.bins = design.bins
        levels = np.arange(1, design.bins) / design.bins
        self._edges = [np.quantile(codes, levels, axis=0).T for codes in plain.codes]
        self.observed = self._binned(plain)
        self._seen = plain.classes
        binned = self._binned(runs)
        self._nodes = [
            [self._fit(binned, above, values[:, k], ~given[:, k], design, seed) for k in range(values.shape[1])]
            if above
            else []
            for above, values, given in zip(graph[:-1], binned, runs.given, strict=True)
        ]
        self._output = self._fit(
            binned,
            graph[-1],
            runs.classes,
            np.ones(len(runs.classes), dtype=bool),
            design,
            seed,
            values=runs.probabilities.shape[1],
        )
        rng = np.random.default_rng(seed)
        self._chance = [rng.random(values.shape) for values in self.observed]
        self._usual = self._sample(0, self.observed, None)

    @property
    def classes(self) -> Floats:
        """P(class) of the model, (classes,)."""
        return self._classes(self._usual)

    def under(self, layer: int, code: int, value: int) -> Floats:
        """P(class | do(code := value)), (classes,)."""
        return self._classes(self._sample(layer, self._usual, (layer, code, value)))

    def expected_effects(self, layer: int) -> Floats:
        """Per code of a layer: the expected total variation of P(class) under do(code := v), v as it is distributed."""
        usual, found = self.classes, []
        for code in range(self.observed[layer].shape[1]):
            share = np.bincount(self.observed[layer][:, code], minlength=self.bins) / len(self.observed[layer])
            effects = [
                np.abs(self.under(layer, code, v) - usual).sum() / 2 if share[v] else 0 for v in range(self.bins)
            ]
            found.append(float(share @ np.array(effects)))
        return np.array(found)

    def agreement(self) -> float:
        """How often the model's likeliest class, from the observed codes of the last layers, is the network's."""
        return float(
            (
                self._output.probabilities(self._features(self.observed, self.graph[-1])).argmax(axis=1) == self._seen
            ).mean()
        )

    def _binned(self, runs: Runs) -> list[Bins]:
        return [
            np.stack([np.searchsorted(edges[k], codes[:, k], side="right") for k in range(codes.shape[1])], axis=1)
            for edges, codes in zip(self._edges, runs.codes, strict=True)
        ]

    def _features(self, binned: Sequence[Bins], above: Sequence[int]) -> Floats:
        """One column for each value of each parent but the lowest."""
        if not above:
            return np.zeros((len(binned[0]), 1))
        columns = [binned[layer][:, :, None] == np.arange(1, self.bins) for layer in above]
        return np.concatenate([c.reshape(len(c), -1) for c in columns], axis=1).astype(np.float64)

    def _fit(
        self,
        binned: Sequence[Bins],
        above: Sequence[int],
        target: Bins,
        free: NDArray[np.bool_],
        design: ConceptDesign,
        seed: int,
        *,
        values: int | None = None,
    ) -> Conditional:
        seen = np.unique(target[free])
        if len(seen) == 1:
            return Conditional(values or self.bins, seen, None)
        model: Any = LogisticRegression(max_iter=200)
        if design.model == "boosted":
            model = HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=8, random_state=seed)
        model.fit(self._features(binned, above)[free], target[free])
        return Conditional(values or self.bins, seen, model)

    def _sample(self, first: int, usual: Sequence[Bins], do: tuple[int, int, int] | None) -> list[Bins]:
        """Values of all codes, those in front of layer `first` as usual, under do(layer, code, value)."""
        found = [values.copy() for values in usual]
        for layer in range(first, len(found)):
            changes = do is None or layer > do[0]
            if changes and self._nodes[layer]:
                features = self._features(found, self.graph[layer])
                for code, node in enumerate(self._nodes[layer]):
                    total = node.probabilities(features).cumsum(axis=1)[:, :-1]
                    found[layer][:, code] = (total < self._chance[layer][:, code, None]).sum(axis=1)
            if do is not None and do[0] == layer:
                found[layer][:, do[1]] = do[2]
        return found

    def _classes(self, binned: Sequence[Bins]) -> Floats:
        found: Floats = self._output.probabilities(self._features(binned, self.graph[-1])).mean(axis=0)
        return found
