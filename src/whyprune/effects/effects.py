"""`Effects`: what removing each unit does to the outcome, and how sure that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats

from whyprune.effects.intervals import moments, skew_corrected
from whyprune.errors import InputError
from whyprune.structure.units import Unit

Floats = NDArray[np.float64]

ESTIMANDS = {
    "single": "one unit intervened on in the network as it is: E[Y | do(u)] - E[Y]",
    "conditional": "one unit more, given units that are gone: E[Y | do(S, u)] - E[Y | do(S)]",
    "context": "one unit more, averaged over random sets of others that are gone, each with probability `rate`",
    "shapley": "one unit more, averaged over all orders in which units can go",
    "joint": "a whole set at once: E[Y | do(S)] - E[Y]",
    "curve": "what its group's response curve rises by where the unit goes",
    "score": "no effect: a number that ranks units",
}
"""The estimands; they are different numbers, and a result carries which one it is."""


@dataclass(frozen=True)
class ResponseCurve:
    """Width -> measured effect of keeping the best units of one group.

    Attributes:
        group: the group's name.
        order: unit names in the order in which they go, the most dispensable first.
        removed: how many of them are gone at each point, ascending, starting at 0.
        effect: mean effect on the outcome at each point.
        standard_error: of `effect`.
    """

    group: str
    order: tuple[str, ...]
    removed: NDArray[np.int64]
    effect: Floats
    standard_error: Floats


@dataclass(frozen=True)
class Effects:
    """Per unit a mean effect with its standard error and 95% interval; higher means more harm when it goes.

    Attributes:
        units: unit names, aligned with the arrays.
        groups: the group of each unit.
        mean: mean effect over images (for a criterion: its score).
        standard_error: of the mean; NaN for criteria, which are no estimates of an effect.
        samples: images per unit.
        outcome: name of the outcome.
        intervention: the value v of do(unit := v); empty for criteria and curves, which set units to none.
        estimand: which effect is estimated, one of `ESTIMANDS`.
        method: the estimator's or criterion's name.
        per_image: (units, images) individual effects, where they were asked for.
        forward_passes_per_unit: cost in dense forward passes of one image, per unit and image; NaN if not counted.
        curves: response curve per group, where they were measured.
        blocks: residual block -> effect of bypassing it, where that was measured.
        given: the units that are gone already.
        rate: for `context`: with which probability every other unit is gone.
        forward_passes: cost of all in dense forward passes of one image; a backward pass counts as two; NaN if not
            counted.
        approximate: True where the estimate has an error that more images do not shrink: the interval does not
            count it.
        degrees_of_freedom: of the t-intervals; None for `samples` - 1.
        bounds: (low, high) of intervals that are no t-intervals around the mean.
        diagnostics: numbers that a method says of itself, by name.
        across_groups: of scores, whether those of different groups can be compared as they are.
        natural_widths: group -> how many of its units a criterion finds distinct, where it says so.
    """

    units: tuple[str, ...]
    groups: tuple[str, ...]
    mean: Floats
    standard_error: Floats
    samples: int
    outcome: str
    intervention: str
    estimand: str
    method: str
    per_image: NDArray[np.float32] | None = None
    forward_passes_per_unit: float = float("nan")
    curves: Mapping[str, ResponseCurve] = field(default_factory=dict)
    blocks: Mapping[str, float] = field(default_factory=dict)
    given: tuple[str, ...] = ()
    rate: float = float("nan")
    forward_passes: float = float("nan")
    approximate: bool = False
    degrees_of_freedom: float | None = None
    bounds: tuple[Floats, Floats] | None = None
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    across_groups: bool = False
    natural_widths: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.estimand not in ESTIMANDS:
            raise InputError(f"no estimand named {self.estimand!r}: choose from {', '.join(ESTIMANDS)}")

    @property
    def interval(self) -> tuple[Floats, Floats]:
        """95% intervals of the means: (low, high); t-intervals unless the estimator gave its own."""
        if self.bounds is not None:
            return self.bounds
        freedom = self.samples - 1 if self.degrees_of_freedom is None else self.degrees_of_freedom
        half = stats.t.ppf(0.975, max(freedom, 1)) * self.standard_error
        return self.mean - half, self.mean + half

    def __getitem__(self, unit: str | Unit) -> float:
        """The mean effect of one unit."""
        name = unit if isinstance(unit, str) else unit.name
        if name not in self.units:
            raise InputError(f"no effect was estimated for {name!r}")
        return float(self.mean[self.units.index(name)])

    def only(self, units: Sequence[str]) -> "Effects":
        """The effects of some units, in the order given, without curves and blocks.

        Raises:
            InputError: one was not estimated.
        """
        place = {name: k for k, name in enumerate(self.units)}
        unknown = [name for name in units if name not in place]
        if unknown:
            raise InputError(f"no effect was estimated for {unknown[0]!r}")
        rows = np.array([place[name] for name in units], dtype=np.int64)
        return replace(
            self,
            units=tuple(units),
            groups=tuple(self.groups[k] for k in rows),
            mean=self.mean[rows],
            standard_error=self.standard_error[rows],
            per_image=None if self.per_image is None else self.per_image[rows],
            bounds=None if self.bounds is None else (self.bounds[0][rows], self.bounds[1][rows]),
            curves={},
            blocks={},
        )

    def by_unit(self) -> dict[str, float]:
        """Unit name -> mean effect."""
        return dict(zip(self.units, self.mean.tolist(), strict=True))

    def by_class(self, labels: Sequence[int] | NDArray[np.int64]) -> dict[int, Floats]:
        """Class -> mean effect of every unit on the images of that class.

        Raises:
            InputError: effects per image were not kept, or `labels` has another length.
        """
        if self.per_image is None:
            raise InputError("effects per image were not kept: estimate with per_image=True")
        array = np.asarray(labels)
        if array.shape != (self.per_image.shape[1],):
            raise InputError(f"{array.size} labels for {self.per_image.shape[1]} images")
        return {int(c): self.per_image[:, array == c].mean(axis=1).astype(np.float64) for c in np.unique(array)}

    def table(self, removed: Sequence[str] = ()) -> pa.Table:
        """One row per unit, as stored in `effects.parquet`."""
        low, high = self.interval
        gone = set(removed)
        constant = {
            "outcome": self.outcome,
            "intervention": self.intervention,
            "estimand": self.estimand,
            "method": self.method,
            "rate": self.rate,
        }
        return pa.table(
            {
                "unit": list(self.units),
                "group": list(self.groups),
                "effect": self.mean,
                "standard_error": self.standard_error,
                "interval_low": low,
                "interval_high": high,
                "samples": [self.samples] * len(self.units),
                "removed": [u in gone for u in self.units],
                **{k: [v] * len(self.units) for k, v in constant.items()},
            }
        )

    def __repr__(self) -> str:
        return f"Effects({self.method}: {len(self.units)} units, {self.samples} images, {self.estimand} {self.outcome})"


def from_samples(
    units: Sequence[Unit], per_image: NDArray[np.float32], *, keep_images: bool = False, **about: Any
) -> Effects:
    """Effects from individual effects (units, images): means with intervals that allow for skewed values.

    Raises:
        InputError: fewer than two images: no standard error can be given.
    """
    images = per_image.shape[1]
    if images < 2:
        raise InputError(f"{images} image(s) of data: at least 2 are needed for a standard error")
    mean, error, skewness, samples = moments(per_image.T.astype(np.float64))
    return Effects(
        units=tuple(u.name for u in units),
        groups=tuple(u.group for u in units),
        mean=mean,
        standard_error=error,
        samples=images,
        bounds=skew_corrected(mean, error, skewness, samples),
        per_image=per_image if keep_images else None,
        **about,
    )


def from_scores(
    units: Sequence[Unit], scores: Sequence[float] | Floats, *, method: str, samples: int = 0, **about: Any
) -> Effects:
    """Scores of a criterion in the shape of effects; they carry no interval."""
    mean = np.asarray(scores, dtype=np.float64)
    return Effects(
        units=tuple(u.name for u in units),
        groups=tuple(u.group for u in units),
        mean=mean,
        standard_error=np.full(len(units), np.nan),
        samples=samples,
        outcome=about.pop("outcome", ""),
        intervention=about.pop("intervention", ""),
        estimand="score",
        method=method,
        **about,
    )
