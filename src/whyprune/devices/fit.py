"""Fits the rates of a roofline to measured latencies of operations or of whole networks.

Errors of the *logarithm* of the latency are minimised, so that a fast network counts as much as a slow one and errors
are relative, as they are reported. A dozen rates do not follow from a handful of networks: a prior over their
logarithms, learned from other devices, fills in what the measurements leave open. So this is a posterior mode. The
loss is robust (soft L1), because published tables have wrong entries.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import least_squares

from whyprune.devices.profile import RATED, Rates
from whyprune.devices.roofline import Array, Work
from whyprune.errors import InputError
from whyprune.results import Record
from whyprune.structure.operation_costs import KINDS, OperationCost

PARAMETERS = (
    *(f"gmac_{kind}" for kind in RATED),
    *("mbyte", "mbyte_elementwise", "mbyte_of_weights"),
    *(f"layer_{kind}" for kind in KINDS),
    "run",
)
"""What is fitted: the logarithm of each, in ms."""

NOISE = 0.1
"""Standard deviation of a log latency around a roofline, when the rates are right."""

CHANNEL_RAMP = 4.0
"""A layer of this many channels runs at half the rate of a very wide one."""

PRIOR_FILE = Path(__file__).parent / "roofline_prior.json"


class Prior(Record):
    """What devices are like: mean and covariance of the log rates, in the order of `parameters`.

    The level (how fast a device is) is left open besides: only the shape is believed.
    """

    parameters: tuple[str, ...] = PARAMETERS
    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    channel_ramp: float = Field(ge=0)
    learned_from: str = ""


@dataclass(frozen=True)
class Workload:
    """Layers that were measured together, and their latency in ms for a batch of one."""

    operations: Sequence[OperationCost]
    ms: float


def weak_prior(spread: float = 1.0, channel_ramp: float = CHANNEL_RAMP) -> Prior:
    """Every log rate around that of a mid-range board, with a standard deviation of `spread`.

    What an operation costs besides is alike for all kinds: half of the spread is their own.
    """
    gmac = {"winograd": 13.0, "spatial": 33.0, "pointwise": 32.0, "grouped": 39.0, "depthwise": 20.0}
    rates = {f"gmac_{kind}": gmac.get(kind, 33.0) for kind in RATED}
    rates |= {"mbyte": 0.05, "mbyte_elementwise": 0.1, "mbyte_of_weights": 0.03, "run": 0.01}
    rates |= {f"layer_{kind}": 0.02 for kind in KINDS}
    besides = np.array([name.startswith("layer_") for name in PARAMETERS])
    own = np.where(besides, spread / 2, spread) ** 2
    covariance = np.diag(own) + spread**2 * np.outer(besides, besides)
    mean = tuple(float(np.log(rates[name])) for name in PARAMETERS)
    return Prior(mean=mean, covariance=_rows(covariance), channel_ramp=channel_ramp)


def default_prior() -> Prior:
    """The prior learned from published latencies of many boards; it is part of the package."""
    return Prior.model_validate_json(PRIOR_FILE.read_text(encoding="utf-8"))


def fitted_rates(
    workloads: Sequence[Workload], prior: Prior | None = None, *, channel_step: int = 1, noise: float = NOISE
) -> Rates:
    """The rates of the device on which the workloads were measured.

    Args:
        workloads: at least one; every latency finite and positive.
        prior: what is believed beforehand; by default what other boards are like.
        channel_step: the width of the device's blocks of channels.
        noise: how far log latencies scatter around the roofline.

    Raises:
        InputError: no workloads, one without operations, or a latency that is no positive number.
    """
    prior = default_prior() if prior is None else prior
    bad = next((w.ms for w in workloads if not (np.isfinite(w.ms) and w.ms > 0)), None)
    if not workloads or bad is not None or not all(w.operations for w in workloads):
        raise InputError(f"cannot fit to {len(workloads)} latencies, one of them {bad}: give layers and positive ms")
    problem = Problem.of([w.operations for w in workloads], prior.channel_ramp, channel_step)
    found = posterior_mode(problem, np.log([w.ms for w in workloads]), prior, noise)
    return rates_of(found, prior.channel_ramp, channel_step)


def rates_of(parameters: Array, channel_ramp: float, channel_step: int = 1) -> Rates:
    """Rates from logarithms in the order of `PARAMETERS`."""
    value = dict(zip(PARAMETERS, (float(v) for v in np.exp(parameters)), strict=True))
    return Rates(
        ms_per_gmac={kind: value[f"gmac_{kind}"] for kind in RATED},
        ms_per_mbyte=value["mbyte"],
        ms_per_mbyte_elementwise=value["mbyte_elementwise"],
        ms_per_mbyte_of_weights=value["mbyte_of_weights"],
        ms_per_layer={kind: value[f"layer_{kind}"] for kind in KINDS},
        ms_per_run=value["run"],
        channel_ramp=channel_ramp,
        channel_step=channel_step,
    )


@dataclass(frozen=True)
class Problem:
    """Workloads as arrays: the work of all operations, one after the other, and where every workload begins."""

    work: Work
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, workloads: Sequence[Sequence[OperationCost]], channel_ramp: float, channel_step: int = 1) -> "Problem":
        """Stacks the operations of all workloads."""
        lengths = [len(operations) for operations in workloads]
        stacked = [operation for operations in workloads for operation in operations]
        work = Work.of(stacked, channel_ramp=channel_ramp, channel_step=channel_step)
        return cls(work, np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.intp))

    def predict(self, parameters: Array) -> tuple[Array, Array]:
        """Log ms of every workload, shape (workloads,), and its derivatives, shape (workloads, parameters)."""
        work, value = self.work, dict(zip(PARAMETERS, np.exp(parameters), strict=True))
        at = {name: i for i, name in enumerate(PARAMETERS)}
        computing = work.gmacs * np.array([value.get(f"gmac_{kind}", 0.0) for kind in KINDS])[work.kind]
        rated = np.array([kind in RATED for kind in KINDS])[work.kind]
        moving = work.mbytes * np.where(rated, value["mbyte"], value["mbyte_elementwise"])
        loading = work.weight_mbytes * value["mbyte_of_weights"]
        computes = computing > moving + loading
        parts = np.zeros((len(computing), len(PARAMETERS)))
        for index, kind in enumerate(KINDS):
            rows = work.kind == index
            parts[rows, at[f"layer_{kind}"]] = value[f"layer_{kind}"]
            if kind in RATED:
                parts[rows & computes, at[f"gmac_{kind}"]] = computing[rows & computes]
        parts[:, at["mbyte"]] = np.where(computes | ~rated, 0.0, moving)
        parts[:, at["mbyte_elementwise"]] = np.where(rated, 0.0, moving)
        parts[:, at["mbyte_of_weights"]] = np.where(computes, 0.0, loading)
        sums = np.add.reduceat(parts, self.starts, axis=0)
        sums[:, at["run"]] = value["run"]
        total = sums.sum(1)
        return np.log(total), sums / total[:, None]

    def only(self, which: Sequence[int]) -> "Problem":
        """Some of the workloads."""
        ends = np.append(self.starts[1:], len(self.work.gmacs))
        rows = [np.arange(self.starts[i], ends[i]) for i in which]
        index = np.concatenate(rows).astype(np.intp)
        work = Work(*(column[index] for column in vars(self.work).values()))
        return Problem(work, np.concatenate([[0], np.cumsum([len(r) for r in rows])[:-1]]).astype(np.intp))


def posterior_mode(problem: Problem, log_ms: Array, prior: Prior, noise: float = NOISE) -> Array:
    """The log rates that explain measured log latencies and fit the prior's shape, at any level."""
    mean, covariance = np.array(prior.mean), np.array(prior.covariance)
    whiten = np.linalg.cholesky(np.linalg.inv(covariance)).T
    size = len(mean)

    def residuals(free: Array) -> Array:
        predicted, _ = problem.predict(free[:size])
        return np.concatenate([_softened((predicted - log_ms) / noise)[0], whiten @ (free[:size] - mean - free[size])])

    def jacobian(free: Array) -> Array:
        predicted, slopes = problem.predict(free[:size])
        _, softness = _softened((predicted - log_ms) / noise)
        fitted = np.column_stack([softness[:, None] * slopes / noise, np.zeros(len(predicted))])
        believed = np.column_stack([whiten, -whiten.sum(1)])
        return np.vstack([fitted, believed])

    level = float(np.median(log_ms - problem.predict(mean)[0]))
    start = np.append(mean + level, level)
    found = least_squares(residuals, start, jac=jacobian, method="trf", max_nfev=60, xtol=1e-6, ftol=1e-6)
    return np.asarray(found.x[:size])


def _softened(z: Array) -> tuple[Array, Array]:
    """Residuals whose squares are the soft L1 loss of `z` (quadratic within 3, linear beyond), and their slopes."""
    scale = 3.0
    ratio = (z / scale) ** 2
    loss = 2 * scale**2 * (np.sqrt(1 + ratio) - 1)
    root = np.sign(z) * np.sqrt(loss)
    slope = np.where(np.abs(z) < 1e-6, 1.0, z / np.sqrt(1 + ratio) / np.where(np.abs(root) < 1e-12, 1.0, root))
    return root, slope


def learn_prior(fits: Array, channel_ramp: float, learned_from: str, floor: float = 0.05) -> Prior:
    """A prior from the fits of many devices, shape (devices, parameters): robust centre, covariance of the shapes."""
    levels = np.median(fits, axis=1, keepdims=True)
    shapes = fits - levels
    centre = np.median(shapes, axis=0)
    covariance = np.cov((shapes - centre).T) + floor**2 * np.eye(fits.shape[1])
    mean = centre + float(np.median(levels))
    return Prior(
        mean=tuple(map(float, mean)),
        covariance=_rows(covariance),
        channel_ramp=channel_ramp,
        learned_from=learned_from,
    )


def _rows(matrix: Array) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(map(float, row)) for row in matrix)
