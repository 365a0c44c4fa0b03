"""`gcm`: DoWhy's graphical causal models over summaries of the network's units, and what can be asked of them.

Blöbaum, Götz, Budhathoki, Mastakouri and Janzing, DoWhy-GCM, JMLR 2024, arXiv:2206.06821. [P] invertible structural
models, counterfactuals, intrinsic influence, arrow strength. [I] what it is given: the network's own graph over parts
at the sites where they are read; runs under random masks, in which whole parts are gone; and each mechanism is fitted
on those runs only in which its own variable was left alone.

It is affordable for some 100 variables. Beyond that, units of a group are taken together in blocks (see `variables`),
and what tells units of a block apart is their share of its mean. Samples are never drawn from fitted roots, which would
make filters of the first layer independent: all questions are asked about observed images. Only `intrinsic` cannot be.

What it does not claim: means over places are not the maps, and a tensor that flows on past its readers is known only as
they saw it. The error does not shrink with more images, and nobody knows its size: the scorer gives no effects.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from whyprune.causal.fitted.extra import quiet, required
from whyprune.causal.fitted.scm import affordable, held_values, joined_runs, masked_runs, plain_runs
from whyprune.causal.fitted.sites import Runs
from whyprune.causal.fitted.structural import TREES, Mechanism
from whyprune.causal.fitted.variables import Variables, variables
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects, from_scores
from whyprune.errors import InputError
from whyprune.interventions.suffix import chosen_units
from whyprune.interventions.worlds import Worlds
from whyprune.progress import Progress
from whyprune.scoring.contract import WITHOUT_CARRIED, Question, scorer
from whyprune.structure.network import Network
from whyprune.structure.state import State

Floats = NDArray[np.float64]
Y = "outcome"
IMAGES = 128
MOST = 100


@dataclass(frozen=True)
class GraphicalModel:
    """A fitted DoWhy-GCM model of the network.

    Attributes:
        variables: what it speaks of.
        worlds: the network on its images.
        plain: runs without intervention.
        model: DoWhy's `InvertibleStructuralCausalModel`; its nodes are `variables.names` and `outcome`.
        observed: the plain runs as a pandas data frame, one column a node.
        seed: of whatever DoWhy draws.
    """

    variables: Variables
    worlds: Worlds
    plain: Runs
    model: Any
    observed: Any
    seed: int

    def interventional(self, name: str) -> float:
        """E[Y | do(variable := 0)] - E[Y] in the model, over the observed images."""
        gcm = required("dowhy.gcm")
        with quiet(self.seed):
            found = gcm.interventional_samples(self.model, {self._known(name): _zero}, observed_data=self.observed)
        return float(found[Y].mean() - self.observed[Y].mean())

    def counterfactual(self, name: str) -> Floats:
        """What the outcome would have been on each image had the variable been 0, less what it was; (images,)."""
        gcm = required("dowhy.gcm")
        with quiet(self.seed):
            found = gcm.counterfactual_samples(self.model, {self._known(name): _zero}, observed_data=self.observed)
        change: Floats = found[Y].to_numpy() - self.observed[Y].to_numpy()
        return change

    def arrows(self) -> dict[str, float]:
        """Strength of every arrow into the outcome: by how much cutting it changes the outcome's variance.

        Where the sources go together, as they do in a network, it can be negative.
        """
        gcm = required("dowhy.gcm")
        parents = self.observed[list(self.model.graph.predecessors(Y))]
        with quiet(self.seed):
            found = gcm.arrow_strength(self.model, Y, parent_samples=parents, n_jobs=1)
        return {str(source): float(value) for (source, _), value in found.items()}

    def intrinsic(self, samples: int = 1000, permutations: int = 20) -> dict[str, float]:
        """Share of the outcome's variance that every variable adds beyond what it inherits from its parents.

        DoWhy draws its own samples here, in which variables without parents are independent; in a network they are not.
        """
        gcm = required("dowhy.gcm")
        shapley = required("dowhy.gcm.shapley")
        config = shapley.ShapleyConfig(
            approximation_method=shapley.ShapleyApproximationMethods.PERMUTATION,
            num_permutations=permutations,
            n_jobs=1,
        )
        with quiet(self.seed):
            found = gcm.intrinsic_causal_influence(
                self.model,
                Y,
                prediction_model=gcm.ml.create_linear_regressor(),
                num_training_samples=samples,
                num_samples_randomization=samples // 10,
                num_samples_baseline=samples // 10,
                shapley_config=config,
            )
        return {str(name): float(value) for name, value in found.items()}

    def unit_effects(self, chosen: Sequence[int], values: Sequence[Floats] | None) -> NDArray[np.float32]:
        """(units, images): counterfactual change of the outcome when a unit's share of its part goes, on each image."""
        gcm, pandas = required("dowhy.gcm"), required("pandas")
        count = len(self.observed)
        moved = np.concatenate([self.variables.shares(self.plain, values, k) for k in chosen])
        alone, owner = np.bincount(self.variables.part) == 1, np.concatenate(self.variables.here)
        held = np.repeat([alone[owner] & (owner == self.variables.part[k]) for k in chosen], count, axis=0)
        repeated = pandas.concat([self.observed] * len(chosen), ignore_index=True)
        fixed = repeated[list(self.variables.names)].to_numpy() + moved
        acts = {
            name: _row_by_row(moved[:, v], fixed[:, v], held[:, v])
            for v, name in enumerate(self.variables.names)
            if moved[:, v].any()
        }
        with quiet(self.seed):
            found = gcm.counterfactual_samples(self.model, acts, observed_data=repeated)
        change: Floats = found[Y].to_numpy() - repeated[Y].to_numpy()
        return change.reshape(len(chosen), count).astype(np.float32)

    def _known(self, name: str) -> str:
        if name not in self.variables.names:
            raise InputError(f"no variable named {name!r}: choose from {', '.join(self.variables.names)}")
        return name


@scorer(
    "gcm",
    kind="estimator",
    summary="DoWhy's graphical causal model over what is read at each place, at most 100 variables; beyond that, "
    "blocks of units",
    estimand="score: size of the counterfactual effect in the fitted model",
    cost="that of `scm`",
    guarantee="none; units of one block differ by their share of its mean only",
    paper="Blöbaum et al., DoWhy-GCM, JMLR 2024",
    interventions=WITHOUT_CARRIED,
    rated=True,
    extra="causal",
    libraries=("dowhy",),
    scaling="invariant",
    drawn=True,
)
def gcm(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Boosted-tree mechanisms on masked runs, and a counterfactual for each unit and image.

    A score: the size of the mean counterfactual effect. The effects themselves, with their signs, are those of
    `graphical_model(...).unit_effects`.

    Raises:
        MissingDependencyError: the extra `causal` is not installed.
        InputError: too few images or forward passes, or the intervention `carried`.
    """
    chosen = [u.name for u in chosen_units(state, question.units)]
    fitted = graphical_model(state, batches, question)
    worlds = fitted.worlds
    places = [k for k, u in enumerate(worlds.units) if u.name in set(chosen)]
    values = held_values(worlds, fitted.variables)
    return from_scores(
        [worlds.units[k] for k in places],
        np.abs(fitted.unit_effects(places, values).mean(axis=1, dtype=np.float64)),
        method="gcm",
        samples=worlds.images,
        outcome=worlds.outcome.name,
        intervention=worlds.value.value,
        given=worlds.given,
        forward_passes=worlds.forward_passes,
    )


def graphical_model(
    start: Network | State,
    batches: Sequence[Batch],
    question: Question,
    *,
    mechanism: Mechanism = "trees",
    regime: Literal["masked", "observational"] = "masked",
    rows: int | None = None,
    most: int = MOST,
) -> GraphicalModel:
    """Fits DoWhy-GCM to runs of the network.

    Args:
        start: a traced model, or a state of it.
        batches: images; counterfactuals are about the first 128.
        question: outcome, intervention, seed, budget, and the rate at which parts are gone (default 0.1).
        mechanism: `linear` or `trees`.
        regime: `masked` or `observational`.
        rows: masked runs; None for 32 for each part, at most 4096, or as many as the budget leaves.
        most: variables beyond which units are taken together in blocks.

    Raises:
        MissingDependencyError: the extra `causal` is not installed.
        InputError: too few images or forward passes; an outcome that is constant without interventions, if
            `observational`.
    """
    required("dowhy.gcm")
    worlds = affordable(start, batches, question, IMAGES)
    every = variables(worlds, most)
    plain = plain_runs(worlds, every)
    if regime == "observational":
        if not np.ptp(worlds.base) > 0:
            raise InputError(
                f"outcome {worlds.outcome.name} is the same on every image without interventions: choose 'margin' or "
                "'cross-entropy', or regime='masked'"
            )
        runs = plain
    else:
        runs = joined_runs(plain, masked_runs(worlds, every, question, rows, blocks=True))
    model = _fitted(worlds, every, runs, mechanism, question)
    return GraphicalModel(every, worlds, plain, model, _frame(worlds, every, plain), question.seed)


def _fitted(worlds: Worlds, every: Variables, runs: Runs, mechanism: Mechanism, question: Question) -> Any:
    gcm, networkx = required("dowhy.gcm"), required("networkx")
    fit = required("dowhy.gcm.fitting_sampling").fit_causal_model_of_target
    graph = networkx.DiGraph(edges(every))
    frame = _frame(worlds, every, runs)
    gone = every.table([runs.masks[:, s.units].astype(float) for s in every.where.sites]) > 0
    model = gcm.InvertibleStructuralCausalModel(graph)
    with quiet(question.seed), Progress(question.progress) as bars:
        bar = bars.add("Fitting mechanisms", len(graph))
        for v, name in enumerate([*every.names, Y]):
            free = np.ones(len(frame), dtype=bool) if name == Y else ~gone[:, v]
            root = graph.in_degree(name) == 0
            model.set_causal_mechanism(name, gcm.EmpiricalDistribution() if root else mechanism_of(gcm, mechanism))
            fit(model, name, frame[free if free.any() else slice(None)])
            bars.advance(bar)
    return model


def edges(every: Variables) -> list[tuple[str, str]]:
    """The network's own arrows between variables, and from what the output reads to the outcome."""
    inside = [(every.names[p], every.names[v]) for v, found in enumerate(every.parents) for p in found]
    last = [every.names[v] for k in every.where.last for v in range(every.spans[k].start, every.spans[k].stop)]
    return inside + [(name, Y) for name in last]


def mechanism_of(gcm: Any, mechanism: Mechanism) -> Any:
    """A mechanism with additive noise that knows nothing yet."""
    if mechanism == "linear":
        return gcm.AdditiveNoiseModel(gcm.ml.create_ridge_regressor())
    trees = gcm.ml.create_hist_gradient_boost_regressor(max_iter=TREES, early_stopping=False, random_state=0)
    return gcm.AdditiveNoiseModel(trees)


def _frame(worlds: Worlds, every: Variables, runs: Runs) -> Any:
    frame = required("pandas").DataFrame(every.table(runs.seen), columns=list(every.names))
    frame[Y] = worlds.harm(runs.logits, runs.images)
    return frame


def _zero(_value: float) -> float:
    return 0.0


def _row_by_row(moved: Floats, fixed: Floats, held: NDArray[np.bool_]) -> Callable[[float], float]:
    """DoWhy applies an intervention row by row, in order: each row gets its own."""
    rows = iter(zip(moved.tolist(), fixed.tolist(), held.tolist(), strict=True))

    def act(value: float) -> float:
        move, target, hold = next(rows)
        return float(target if hold else value + move)

    return act
