"""Random masks: many units at once, each gone with probability p, and a regression that tells them apart.

Shah, Ilyas and Madry (COAR, ICML 2024) ablate a random 5% of a network's components in every run and regress the
output on the masks; Kolawole, Dery et al. (Bonsai, 2024) do so to prune. [P]

    Y(x, Z) - Y(x) = b0 + sum_u b_u Z_u + rest,   Z_u ~ Bernoulli(p), independent: b_u = E[Y | Z_u = 1] - E[Y | Z_u = 0]

so b_u is the `context` effect at rate p, whatever the interactions. It is not the `single` effect: that is its limit
for p -> 0. Ours [I]:

* The baseline is paired: every row is a difference to the untouched network on the same image, computed once.
* Fold-over: masks come in pairs on one image, Z_u = [U_u < p] and Z'_u = [U_u > 1 - p] with U_u uniform and
  independent. Each of the two has exactly the distribution of a single mask, so nothing is biased; no unit is in both
  (for p <= 1/2), and at p = 1/2 they are each other's complement. The main effects of one are then less mixed with
  those of the other; at small p that gains little, as Corr(Z_u, Z'_u) = -p / (1 - p).
* Standard errors are cluster-robust: rows on one image count as one observation (CR2: Bell and McCaffrey 2002, which is
  HC2 where no image repeats), so that neither unequal variances nor interactions need a model. The t-intervals have as
  many degrees of freedom as there are images on which the unit was gone, or was not (the fewer), less one.
* With fewer than twice as many rows as coefficients, or with units hardly ever gone, ridge regression takes over (or
  the lasso, where asked for): it shrinks, so no interval is claimed.

Masks take every unit on its own, a whole group too if it falls so: the readers then see v everywhere. Nothing is cut
from the network, so no axis can be left empty.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import LassoCV, RidgeCV
from sklearn.model_selection import GroupKFold

from whyprune.causal.masks.clustered import least_squares
from whyprune.data.batches import Batch, cut_images
from whyprune.effects.effects import Effects
from whyprune.errors import InputError
from whyprune.interventions.suffix import chosen_units, plain_cost
from whyprune.interventions.worlds import Worlds
from whyprune.progress import Progress
from whyprune.scoring.contract import ALL_INTERVENTIONS, Question, scorer
from whyprune.structure.network import Network
from whyprune.structure.state import State
from whyprune.structure.units import Unit

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]
Regression = Literal["ols", "ridge", "lasso"]
RATE = 0.05
ROWS_PER_UNIT = 20
GONE_IN = 64
LEAST_GONE = 5
BLOCK = 1024
ALPHAS = np.logspace(-4, 4, 17)


class Answers(Protocol):
    """What is asked of `Worlds` here."""

    @property
    def units(self) -> Sequence[Unit]:
        """The units that masks speak of."""
        ...

    @property
    def images(self) -> int:
        """How many images there are."""
        ...

    def effects(self, masks: Masks, images: NDArray[np.int64]) -> Floats:
        """Y(do(units of the row := v)) - Y on the row's image, (rows,)."""
        ...


@dataclass(frozen=True)
class MaskDesign:
    """How masks are drawn and read.

    Attributes:
        rate: probability p with which each unit is gone; best the share that the next round of pruning takes.
        rows: masks in all, two to a pair; None for `ROWS_PER_UNIT` times the units, and enough that each unit is
            gone in `GONE_IN` rows on average.
        regression: `ols` (with intervals), `ridge` or `lasso` (without).
        seed: of masks and images.
    """

    rate: float = RATE
    rows: int | None = None
    regression: Regression = "ols"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 0.5:
            raise InputError(
                f"a rate of {self.rate:g}: give the probability that a unit is gone, above 0 and up to 0.5"
            )
        if self.rows is not None and self.rows < 4:
            raise InputError(f"{self.rows} masks: give at least 4")
        if self.regression not in ("ols", "ridge", "lasso"):
            raise InputError(f"no regression {self.regression!r}: choose from ols, ridge, lasso")

    def count(self, units: int) -> int:
        """Masks for that many units, an even number."""
        wanted = max(ROWS_PER_UNIT * units, GONE_IN / self.rate) if self.rows is None else self.rows
        return 2 * int(np.ceil(wanted / 2))


@dataclass(frozen=True)
class MaskedRuns:
    """Rows (image, mask, effect): what the network did under random masks.

    Attributes:
        masks: (rows, units), True where a unit is gone.
        images: (rows,), the number of each row's image.
        effects: (rows,), Y(x, Z) - Y(x).
    """

    masks: Masks
    images: NDArray[np.int64]
    effects: Floats


@dataclass(frozen=True)
class Fit:
    """Coefficients of a regression on masks, (units,) each; errors and degrees of freedom only for least squares."""

    mean: Floats
    standard_error: Floats
    freedom: Floats
    approximate: bool

    @property
    def half_width(self) -> Floats:
        """Of the 95% intervals."""
        half: Floats = stats.t.ppf(0.975, self.freedom) * self.standard_error
        return half


@scorer(
    "random-masks",
    kind="estimator",
    summary="many random sets of units at once, and a regression on who was gone",
    estimand="context effect at rate p (default 5%)",
    cost="one forward pass per mask, by default 20 masks per unit",
    guarantee="unbiased for the context effect, which is not the single effect; 95% t-interval, robust to unequal "
    "variances and to images that repeat; none when masks are few and ridge or lasso take over",
    paper="Shah, Ilyas and Madry, COAR, ICML 2024; Kolawole, Dery et al., Bonsai, 2024",
    interventions=ALL_INTERVENTIONS,
    rated=True,
    scaling="invariant",
    duplicates="alike",
    drawn=True,
)
def random_masks(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Context effects at `question.rate`, all units masked, those asked for told."""
    design = MaskDesign(rate=RATE if question.rate is None else question.rate, seed=question.seed)
    if question.forward_passes is not None:
        rows, images = _affordable(question.forward_passes, sum(map(len, batches)), plain_cost(state))
        design = MaskDesign(rate=design.rate, rows=min(rows, design.count(len(state.units))), seed=question.seed)
        batches = cut_images(batches, images)[0]
    return mask_effects(state, batches, design, question)


def mask_effects(
    start: Network | State, batches: Sequence[Batch], design: MaskDesign, question: Question | None = None
) -> Effects:
    """Context effects by a design of one's own; `question` gives outcome, intervention, units and progress.

    Raises:
        InputError: no data, fewer than two images, an unknown name.
    """
    question = question or Question()
    chosen = chosen_units(start, question.units)
    worlds = Worlds(start, batches, outcome=question.outcome, intervention=question.intervention)
    fit = regress(masked_runs(worlds, design, progress=question.progress), design.regression)
    place = {u.name: k for k, u in enumerate(worlds.units)}
    picked = np.array([place[u.name] for u in chosen])
    mean, half = fit.mean[picked], fit.half_width[picked]
    return Effects(
        units=tuple(u.name for u in chosen),
        groups=tuple(u.group for u in chosen),
        mean=mean,
        standard_error=fit.standard_error[picked],
        samples=min(worlds.images, design.count(len(worlds.units)) // 2),
        outcome=worlds.outcome.name,
        intervention=worlds.value.value,
        estimand="context",
        method="random-masks",
        given=worlds.given,
        rate=design.rate,
        forward_passes=worlds.forward_passes,
        approximate=fit.approximate,
        bounds=(mean - half, mean + half),
    )


def masked_runs(worlds: Answers, design: MaskDesign, *, progress: bool = False) -> MaskedRuns:
    """Draws the masks, pair by pair, gives each pair an image, all images equally often, and runs them.

    Raises:
        InputError: there are fewer than two images.
    """
    if worlds.images < 2:
        raise InputError(f"{worlds.images} image(s) of data: at least 2 are needed for a standard error")
    rng = np.random.default_rng(design.seed)
    units = len(worlds.units)
    pairs = design.count(units) // 2
    images = np.resize(rng.permutation(worlds.images), pairs).repeat(2)
    masks = fold_over(rng, pairs, units, design.rate)
    effects = np.zeros(len(masks))
    with Progress(progress) as bars:
        bar = bars.add("Running random masks", len(masks))
        for start in range(0, len(masks), BLOCK):
            block = slice(start, start + BLOCK)
            effects[block] = worlds.effects(masks[block], images[block])
            bars.advance(bar, len(images[block]))
    return MaskedRuns(masks, images, effects)


def fold_over(rng: np.random.Generator, pairs: int, units: int, rate: float) -> Masks:
    """(2 pairs, units): rows 2k and 2k + 1 are a pair without a common unit; each alone is Bernoulli(rate)."""
    uniform = rng.random((pairs, units))
    return np.stack([uniform < rate, uniform >= 1 - rate], axis=1).reshape(2 * pairs, units)


def regress(runs: MaskedRuns, regression: Regression = "ols") -> Fit:
    """Coefficients of the effect on the masks, with an intercept.

    Args:
        runs: rows; those on one image count as one observation.
        regression: `ols` falls back to `ridge` where the rows do not carry it.
    """
    if regression == "ols" and _carries(runs):
        mean, error = least_squares(runs.masks.astype(np.float64), runs.effects, runs.images)
        freedom = np.minimum(_images_with(runs, gone=True), _images_with(runs, gone=False)) - 1
        return Fit(mean, error, freedom, approximate=False)
    design, count = runs.masks.astype(np.float64), runs.masks.shape[1]
    folds = min(5, len(np.unique(runs.images)))
    if regression == "lasso":
        splits = list(GroupKFold(folds).split(design, groups=runs.images))
        mean = LassoCV(cv=splits, max_iter=10_000).fit(design, runs.effects).coef_
    else:
        mean = RidgeCV(ALPHAS).fit(design, runs.effects).coef_
    unknown = np.full(count, np.nan)
    return Fit(np.asarray(mean, dtype=np.float64), unknown, np.ones(count), approximate=True)


def _carries(runs: MaskedRuns) -> bool:
    """Whether least squares has enough rows, with every unit gone on some images and left alone on others."""
    rows, units = runs.masks.shape
    return rows >= 2 * (units + 1) and bool((_images_with(runs, gone=True) >= LEAST_GONE).all())


def _images_with(runs: MaskedRuns, *, gone: bool) -> Floats:
    """(units,): on how many images the unit was gone in some row, or was there in some row."""
    _, cluster = np.unique(runs.images, return_inverse=True)
    found = np.zeros((cluster.max() + 1, runs.masks.shape[1]), dtype=bool)
    np.logical_or.at(found, cluster, runs.masks == gone)
    count: Floats = found.sum(axis=0).astype(np.float64)
    return count


def _affordable(forward_passes: float, images: int, untouched: float = 1.0) -> tuple[int, int]:
    """(masks, images) for that many forward passes: each image runs once untouched, and has a pair of masks at least.

    Raises:
        InputError: that is not enough for two pairs.
    """
    used = min(images, int(forward_passes // (untouched + 2)))
    rows = 2 * int((forward_passes - untouched * used) // 2)
    if used < 2:
        raise InputError(
            f"{forward_passes:g} forward passes do not pay for random masks: give at least 6, better thousands"
        )
    return rows, used
