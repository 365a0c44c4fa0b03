"""Interventions do(unit := v): which value every reader of a unit's channels sees instead of the true one.

`zero`: nothing. `mean`: the channel's mean over images and places. `closed-form`: the constant that does least harm to
second order. `optimal`: the one that does least harm as measured (see `optimal`). `resample`: the channel of another
image.
`carried`: the best linear prediction of the channel from the channels that stay, at the same place; what is then
missing is the unit's *unique* effect, what nobody else can carry.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, fx

from whyprune.data.batches import Batch
from whyprune.effects.outcomes import Outcome, as_outcome
from whyprune.effects.output_shift import OutputShift
from whyprune.errors import InputError
from whyprune.interventions.optimal import CLOSED_FORM_COST, EVALUATIONS, Constants, closed_form, searched
from whyprune.progress import Progress
from whyprune.structure.batch_search import BatchPlaces
from whyprune.structure.network import Reader
from whyprune.structure.replay import Replay
from whyprune.structure.units import Unit

InterventionValue = Literal["zero", "mean", "optimal", "closed-form", "resample", "carried"]
CONSTANT = ("zero", "mean", "optimal", "closed-form")
RIDGE = 1e-6


def checked(value: str | None) -> InterventionValue:
    """The intervention of that name; `zero` for None.

    Raises:
        InputError: there is none.
    """
    if value is None:
        return "zero"
    if value not in get_args(InterventionValue):
        raise InputError(f"no intervention {value!r}: choose from {', '.join(get_args(InterventionValue))}")
    return value  # type: ignore[return-value]


def fit_cost(value: InterventionValue, measuring: float) -> float:
    """What fitting an intervention costs per image, at most, in dense forward passes of one image.

    Args:
        value: the intervention.
        measuring: what the exact effects of all units cost per image.
    """
    search = 2.0 + CLOSED_FORM_COST + EVALUATIONS * (1.0 + measuring)
    return {"mean": 1.0, "carried": 1.0, "closed-form": CLOSED_FORM_COST, "optimal": search}.get(value, 0.0)


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
    """An intervention value, with what it must know of the calibration images.

    Attributes:
        value: its name.
        moments: of every tensor that a reader sees, for `mean` and `carried`.
        constants: for `optimal` and `closed-form`.
        places: where images lie, for `resample`.
        forward_passes: what fitting cost, in dense forward passes of one image.
    """

    value: InterventionValue
    moments: dict[fx.Node, Moments] = field(default_factory=dict)
    constants: Constants = field(default_factory=lambda: Constants({}))
    places: BatchPlaces | None = None
    forward_passes: float = 0.0

    def fit(
        self,
        replay: Replay,
        batches: Iterable[Batch],
        outcome: Outcome | None = None,
        units: Sequence[Unit] | None = None,
        *,
        progress: bool = False,
    ) -> "Intervention":
        """Gathers what the value needs to know of every tensor that a reader sees.

        Args:
            replay: the network that is intervened on.
            batches: images.
            outcome: what `optimal` and `closed-form` constants are best for.
            units: which units need `optimal` constants (default: all that are there); others get their mean.
            progress: show a progress bar while `optimal` constants are searched.
        """
        self.places = replay.network.places
        if self.value in ("optimal", "closed-form"):
            asked = as_outcome(None, replay.network.outputs) if outcome is None else outcome
            return self._optimise(replay, list(batches), asked, units, progress)
        if self.value not in ("mean", "carried"):
            return self
        data = {r.data: r.dim for r in replay.network.readers}
        for batch in batches:
            values = replay.run(batch, keep=data)
            for node, dim in data.items():
                self._gather(node, values[node], dim)
            self.forward_passes += len(batch)
        return self

    def _optimise(
        self, replay: Replay, batches: list[Batch], outcome: Outcome, units: Sequence[Unit] | None, progress: bool
    ) -> "Intervention":
        if self.value == "closed-form":
            original = replay.model is replay.network.model and not replay.gone
            dense = None if original else Replay(replay.network)
            ready = outcome
            if dense is not None or isinstance(outcome, OutputShift):
                ready = outcome.fit(torch.cat([(dense or replay).logits(b) for b in batches]))
            self.constants = closed_form(replay, batches, ready, dense)
        else:
            chosen = replay.network.units if units is None else units
            chosen = [u for u in chosen if u.label not in replay.gone]
            measured = outcome.fit(torch.cat([Replay(replay.network).logits(b) for b in batches]))
            with Progress(progress) as bars:
                bar = bars.add("Searching constants", EVALUATIONS * len(chosen))
                self.constants = searched(replay, batches, measured, chosen, lambda done: bars.advance(bar, done))
        self.forward_passes += self.constants.forward_passes
        return self

    def _gather(self, node: fx.Node, value: Tensor, dim: int) -> None:
        rows = value.movedim(dim, -1).flatten(0, -2).double()  # the ridge is below single precision's rounding
        total, products = rows.sum(dim=0), rows.T @ rows
        if node in self.moments:
            held = self.moments[node]
            self.moments[node] = Moments(held.count + len(rows), held.total + total, held.products + products)
        else:
            self.moments[node] = Moments(len(rows), total, products)

    def change(self, reader: Reader, value: Tensor, unit: Tensor, images: int) -> Tensor:
        """The change v - u of the channels `unit` (positions along `reader.dim`), shaped like `value` otherwise.

        Args:
            reader: who sees the channels.
            value: what it reads.
            unit: positions of the channels.
            images: how many images `value` holds.
        """
        current = value.index_select(reader.dim, unit)
        if self.value == "zero":
            return -current
        if self.value == "resample":
            return self._of_the_next(reader, current, images) - current
        shape = [1] * value.dim()
        shape[reader.dim] = len(unit)
        if self.value in ("optimal", "closed-form"):
            return self.constants.change(reader, value, unit, images)
        if self.value == "mean":
            return Constants({reader.data: self.moments[reader.data].mean}).change(reader, value, unit, images)
        shape = [1] * value.dim()
        shape[reader.dim] = len(unit)
        coefficients, intercepts = self.moments[reader.data].prediction(unit)
        predicted: Tensor = torch.tensordot(coefficients.to(value.dtype), value, dims=([1], [reader.dim]))
        predicted = predicted.movedim(0, reader.dim)
        return predicted + intercepts.to(value.dtype).reshape(shape) - current

    def _of_the_next(self, reader: Reader, current: Tensor, images: int) -> Tensor:
        """The channels of the image before in the batch."""
        if images < 2:
            raise InputError("intervention 'resample' takes another image of the batch: give batches of at least 2")
        if self.places is None:
            raise InputError("intervention 'resample' must know where images lie: call fit with the network first")
        place = self.places.of(reader.data)
        return current if place is None else place.take(current, torch.arange(images).roll(1), images)
