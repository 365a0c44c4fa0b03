"""The scorer `cxplain`: effects predicted by an explanation model, also on images that were never intervened on.

Source: Schwab and Karlen, "CXPlain: Causal explanations for model interpretation under uncertainty" (NeurIPS 2019).
For image x and unit f: d_f = Y(x, do f := v) - Y(x); w_f = clip(d_f) / sum_g clip(d_g); a model A minimises
KL(w(x) || A(x)); a bootstrap ensemble gives the median and quantiles.
[P] Targets by masking, shares on a simplex, bootstrap ensemble, median. [I] Units instead of pixels; what readers see
(means and maxima over places) and the logits as input; magnitudes instead of clipped harm, with scale and sign heads,
because a share has neither; conformal intervals, because the ensemble's quantiles say how much its members differ and
not how wrong they are (in a pilot, nominal 95% covered 34%).

It gives effects image by image for one dense forward pass. Their mean over all images has a bias that more images do
not remove (`approximate`); the interval around it counts that bias, from images that the model has not learnt.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from whyprune.causal.cxplain.explainer import Ensemble, Training, train
from whyprune.causal.exact import exact as targets
from whyprune.causal.fitted.summaries import features
from whyprune.data.batches import Batch, joined
from whyprune.effects.effects import Effects
from whyprune.effects.outcomes import Outcome
from whyprune.errors import InputError
from whyprune.progress import Progress
from whyprune.scoring.contract import ALL_INTERVENTIONS, Question, scorer
from whyprune.structure.entry import entered
from whyprune.structure.network import Network
from whyprune.structure.state import State
from whyprune.structure.units import Unit

Floats = NDArray[np.float64]
LEVEL, FLOOR = 0.95, 1e-3
LEAST = 12


@dataclass(frozen=True)
class Cxplain:
    """How effects are predicted.

    Attributes:
        intervened: share of the images that are intervened on, where no budget says how many.
        most: of them at most.
        calibration: share of those that calibrate intervals and are not learnt from.
        training: how the explanation model is trained.
    """

    intervened: float = 0.5
    most: int = 512
    calibration: float = 1 / 3
    training: Training = field(default_factory=Training)


@dataclass(frozen=True)
class Predicted:
    """Predicted individual effects with calibrated 95% intervals, each (units, images).

    An interval holds the effect of a unit on a new image with 95%, on average over units and images like those of the
    calibration; not for every unit, and not for images of another kind.
    """

    units: tuple[str, ...]
    effects: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Explainer:
    """A trained explanation model of one network.

    Attributes:
        state: the network that it explains.
        units: the units whose effects it predicts.
        ensemble: the model.
        factor: by which half the ensemble's spread is multiplied to reach 95%.
        floor: added to that half, (units,): members that agree are no proof.
        residuals: (units, images), effects less predictions on the images of the calibration.
        outcome: name of the outcome.
        forward_passes: cost of targets and features, in dense forward passes of one image.
        learnt: on how many images it was trained.
    """

    state: State
    units: tuple[Unit, ...]
    ensemble: Ensemble
    factor: float
    floor: Floats
    residuals: Floats
    outcome: str
    forward_passes: float
    learnt: int

    def predict(self, data: Iterable[Any]) -> Predicted:
        """Effects on images, none of which is intervened on: one dense forward pass each, no labels.

        Raises:
            InputError: there is no data.
        """
        return self.predicted(features(self.state, data, units=self.units))

    def predicted(self, seen: Floats) -> Predicted:
        """The same from features (images, features), see `summaries.features`."""
        middle, half = _middle(self.ensemble.predict(seen))
        reach = self.factor * (half + self.floor[:, None])
        return Predicted(tuple(u.name for u in self.units), middle, middle - reach, middle + reach)


@scorer(
    "cxplain",
    kind="estimator",
    summary="a small model that predicts effects image by image, learnt from exact effects on half of the images, at "
    "most 512",
    estimand="single effect, approximate",
    cost="that of `exact` on those images, and one forward pass per image; then one per new image, without labels",
    guarantee="approximate: its mean has a bias; the interval counts it; per image, conformal 95% intervals hold on "
    "average over units and images like those of the calibration",
    paper="Schwab and Karlen, CXPlain, NeurIPS 2019",
    interventions=ALL_INTERVENTIONS,
    individual=True,
    scaling="invariant",
    duplicates="alike",
    drawn=True,
)
def cxplain(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Mean predicted effects over all images, of which a part is intervened on."""
    return predicted_effects(state, batches, question, Cxplain())


def predicted_effects(
    start: Network | State, batches: Sequence[Batch], question: Question, options: Cxplain
) -> Effects:
    """Mean predicted effects over all images.

    Args:
        start: a traced model, or a state of it.
        batches: images, drawn at random into those that are intervened on and others.
        question: outcome, intervention, units, budget, seed.
        options: how effects are predicted.

    Raises:
        InputError: too few images, or a budget that pays for too few.
    """
    state = State.of(start)
    images = joined(list(batches))
    if question.forward_passes is not None:  # each image is seen once, and half of the budget stays for interventions
        images = images[slice(0, max(LEAST, int(question.forward_passes / 2)))]
    order = torch.from_numpy(np.random.default_rng(question.seed).permutation(len(images)))
    share = 1.0 if question.forward_passes is not None else options.intervened
    chosen = images[order[: min(max(LEAST, round(share * len(images))), options.most)]]
    budget = None if question.forward_passes is None else question.forward_passes - len(images)
    exact = targets(state, [chosen], replace(question, forward_passes=budget, per_image=True))
    seen = features(state, [images], units=question.units)
    explainer = _learnt(state, exact, seen[order[: exact.samples].numpy()], options, question.seed, question.progress)
    found = explainer.predicted(seen)
    error = explainer.residuals
    middle = found.effects.mean(axis=1)
    centre = middle + error.mean(axis=1)
    variance = error.var(axis=1, ddof=1) / error.shape[1] + found.effects.var(axis=1, ddof=1) / len(images)
    half = float(stats.t.ppf((1 + LEVEL) / 2, error.shape[1] - 1)) * np.sqrt(variance)
    return Effects(
        units=found.units,
        groups=tuple(u.group for u in explainer.units),
        mean=middle,
        standard_error=np.sqrt(variance),
        samples=len(images),
        outcome=explainer.outcome,
        intervention=exact.intervention,
        estimand=exact.estimand,
        method="cxplain",
        given=exact.given,
        per_image=found.effects.astype(np.float32) if question.per_image else None,
        forward_passes=exact.forward_passes + len(images),
        approximate=True,
        bounds=(np.minimum(centre - half, middle), np.maximum(centre + half, middle)),
    )


def explain(
    start: Network | State,
    data: Iterable[Any],
    *,
    outcome: Outcome | str | None = None,
    intervention: str | None = None,
    units: Sequence[Unit | str] | None = None,
    options: Cxplain | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Explainer:
    """Trains an explanation model of a network, with intervals calibrated on images that it has not learnt.

    Args:
        start: a traced model, or a state of it.
        data: batches, every image of which is intervened on; labels only if the outcome needs them.
        outcome: what harm is (default `LogitShift`, of other outputs `OutputShift`).
        intervention: `zero` (default), `mean`, `optimal`, `closed-form`, `resample` or `carried`.
        units: which units (default: all that are there).
        options: how.
        seed: of the split and of the training.
        progress: show progress bars.

    Raises:
        InputError: fewer than `LEAST` images, an unknown name, missing labels.
    """
    state = State.of(start)
    images = joined(list(entered(data, state.network)))
    names = None if units is None else tuple(u if isinstance(u, str) else u.name for u in units)
    question = Question(outcome, intervention, names, per_image=True, progress=progress)
    exact = targets(state, [images], question)
    seen = features(state, [images], units=names)
    return _learnt(state, exact, seen, options or Cxplain(), seed, progress)


def _learnt(state: State, exact: Effects, seen: Floats, options: Cxplain, seed: int, progress: bool) -> Explainer:
    """The explanation model of exact effects and features (images, features) of the same images."""
    effects = np.asarray(exact.per_image, dtype=np.float64).T
    images = len(effects)
    if images < LEAST:
        raise InputError(
            f"{images} images that are intervened on: an explanation model needs at least {LEAST}, or forward passes "
            "for as many"
        )
    order = np.random.default_rng([seed, 1]).permutation(images)
    kept = max(LEAST // 3, round(options.calibration * images))
    calibrate, learn = order[:kept], order[kept:]
    with Progress(progress) as bars:
        bar = bars.add("Training the explanation model", options.training.epochs)
        ensemble = train(seen[learn], effects[learn], options.training, seed, lambda: bars.advance(bar))
    middle, half = _middle(ensemble.predict(seen[calibrate]))
    residuals = effects[calibrate].T - middle
    floor = FLOOR * np.abs(effects[learn]).mean(axis=0) + np.finfo(np.float32).eps
    return Explainer(
        state=state,
        units=tuple(state.network.by_name[name] for name in exact.units),
        ensemble=ensemble,
        factor=_factor(np.abs(residuals) / (half + floor[:, None])),
        floor=floor,
        residuals=residuals,
        outcome=exact.outcome,
        forward_passes=exact.forward_passes + images,
        learnt=len(learn),
    )


def _middle(members: Floats) -> tuple[Floats, Floats]:
    """The median (units, images) of members (models, images, units), and half their central 95%."""
    low, middle, high = np.quantile(members, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2], axis=0)
    return middle.T, (high - low).T / 2


def _factor(scores: Floats) -> float:
    """Split conformal: the score that 95% of calibration images stay below, with the correction for their number.

    Scores of all units are pooled; images, not pairs, are what is exchangeable, so their number corrects.
    """
    images = scores.shape[1]
    level = min(1.0, LEVEL * (1 + 1 / images))
    return float(np.quantile(scores, level, method="higher"))
