"""Interventions do(unit := v): which value every reader of a unit's channels sees instead of the true one.

`zero`: nothing. `mean`: the channel's mean over images and places. `optimal`: the constant that does least harm, to
second order (see `sensitivity`). `resample`: the channel of another image.
`carried`: the best linear prediction of the channel from the channels that stay, at the same place; what is then
missing is the unit's *unique* effect, what nobody else can carry.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, fx

from whyprune.causal.outcomes import LogitShift, Outcome
from whyprune.causal.sensitivity import sensitivity
from whyprune.data.batches import Batch
from whyprune.errors import InputError
from whyprune.structure.network import Reader
from whyprune.structure.replay import Replay

InterventionValue = Literal["zero", "mean", "optimal", "resample", "carried"]
RIDGE = 1e-6


def checked(value: str) -> InterventionValue:
    """The intervention of that name.

    Raises:
        InputError: there is none.
    """
    if value not in get_args(InterventionValue):
        raise InputError(f"no intervention {value!r}: choose from {', '.join(get_args(InterventionValue))}")
    return value  # type: ignore[return-value]


@dataclass
class Moments:
    """First and second moments of the channels that one reader sees, over images and places (float64)."""

    count: int
    total: Tensor
    products: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean per channel, (C,)."""
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:
        """(C, C)."""
        return self.products / self.count - torch.outer(self.mean, self.mean)

    def prediction(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients (len(unit), C) and intercepts (len(unit),) that predict channels `unit` from all others.

        Ridge regression on the covariance; the ridge is relative to the channels' mean variance.
        """
        covariance = self.covariance
        channels = len(covariance)
        stay = torch.ones(channels, dtype=torch.bool)
        stay[unit] = False
        coefficients = torch.zeros(len(unit), channels, dtype=torch.float64)
        if stay.any():
            inner = covariance[stay][:, stay]
            ridge = RIDGE * inner.diagonal().mean().clamp_min(1e-12)
            solved = torch.linalg.solve(
                inner + ridge * torch.eye(len(inner), dtype=inner.dtype), covariance[stay][:, unit]
            )
            coefficients[:, stay] = solved.T
        return coefficients, self.mean[unit] - coefficients @ self.mean


@dataclass
class Intervention:
    """An intervention value, with what it must know of the calibration images."""

    value: InterventionValue
    moments: dict[fx.Node, Moments] = field(default_factory=dict)
    constants: dict[fx.Node, Tensor] = field(default_factory=dict)

    def fit(self, replay: Replay, batches: Iterable[Batch], outcome: Outcome | None = None) -> "Intervention":
        """Gathers what the value needs to know of every tensor that a reader sees; `optimal` depends on the outcome."""
        if self.value == "optimal":
            self._optimise(replay, batches, LogitShift() if outcome is None else outcome)
        if self.value not in ("mean", "carried"):
            return self
        data = {r.data: r.dim for r in replay.network.readers}
        for batch in batches:
            values = replay.run(batch, keep=data)
            for node, dim in data.items():
                self._gather(node, values[node], dim)
        return self

    def _optimise(self, replay: Replay, batches: Iterable[Batch], outcome: Outcome) -> None:
        found = sensitivity(replay, batches, outcome).optimal_constants().tolist()
        best = dict(zip((u.label for u in replay.network.units), found, strict=True))
        for reader in replay.network.readers:
            labels = [label for label in reader.labels.tolist() if label not in replay.gone]
            self.constants[reader.data] = torch.tensor([best.get(label, 0.0) for label in labels])

    def _gather(self, node: fx.Node, value: Tensor, dim: int) -> None:
        rows = value.movedim(dim, -1).flatten(0, -2).double()  # the ridge is below single precision's rounding
        total, products = rows.sum(dim=0), rows.T @ rows
        if node in self.moments:
            held = self.moments[node]
            self.moments[node] = Moments(held.count + len(rows), held.total + total, held.products + products)
        else:
            self.moments[node] = Moments(len(rows), total, products)

    def change(self, reader: Reader, value: Tensor, unit: Tensor) -> Tensor:
        """The change v - u of the channels `unit` (positions along `reader.dim`), shaped like `value` otherwise."""
        current = value.index_select(reader.dim, unit)
        if self.value == "zero":
            return -current
        if self.value == "resample":
            if len(current) < 2:
                raise InputError("intervention 'resample' takes another image of the batch: give batches of at least 2")
            return current.roll(1, dims=0) - current
        shape = [1] * value.dim()
        shape[reader.dim] = len(unit)
        if self.value in ("mean", "optimal"):
            known = self.moments[reader.data].mean if self.value == "mean" else self.constants[reader.data]
            return known[unit].to(value.dtype).reshape(shape) - current
        coefficients, intercepts = self.moments[reader.data].prediction(unit)
        predicted: Tensor = torch.tensordot(coefficients.to(value.dtype), value, dims=([1], [reader.dim]))
        predicted = predicted.movedim(0, reader.dim)
        return predicted + intercepts.to(value.dtype).reshape(shape) - current
