"""Effect profiles: what do(unit := v) changes in the outputs, image by image and class by class, with its sign.

A single effect says how much harm a unit's removal does; its profile says which way. Two units of the same profile can
stand for each other, whatever their weights and maps are; two that do the same harm in different ways cannot. Profiles
come from the machine of exact effects (see `interventions/suffix`) and cost what those cost.

    profile(u)[image, class] = (z(do(u := v)) - z) / sqrt(scale),    mean over images of |profile|^2 = the effect of u

where z are the outcome's directions (`LogitShift`: centred logits; `OutputShift`: weighted rows), the effect being that
of a network of which nothing is gone. An outcome that is no squared distance has no directions: the profile is then
that of the network's default outcome.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whyprune.effects.outcomes import Outcome, Quadratic, judged
from whyprune.errors import InputError
from whyprune.interventions.suffix import (
    chosen_units,
    plain_cost,
    rebatched,
    reference,
    relative_cost,
    rows_on_batch,
    suffixes,
)
from whyprune.interventions.values import Intervention, checked
from whyprune.progress import Progress
from whyprune.structure.entry import entered
from whyprune.structure.network import Network
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.units import Unit

MOST_BYTES = 512 * 2**20
"""Of all profiles together: where outputs are so wide that they would take more, they are sketched."""


@dataclass(frozen=True)
class Profiles:
    """The effect profiles of units on the same images.

    Attributes:
        units: whose they are.
        vectors: (units, images x columns), image by image.
        images: how many there are.
        columns: numbers per image: classes, or what the outputs hold, or fewer where they are sketched.
        sketched: columns are sums of outputs under random signs, which keep squared distances in expectation
            (Charikar, Chen and Farach-Colton, 2002); equal profiles stay equal.
        outcome: the name of the outcome whose directions they are in.
        intervention: the value v of do(unit := v).
        forward_passes: what they cost, in dense forward passes of one image.
    """

    units: tuple[Unit, ...]
    vectors: NDArray[np.float32]
    images: int
    columns: int
    sketched: bool
    outcome: str
    intervention: str
    forward_passes: float

    @property
    def effects(self) -> NDArray[np.float64]:
        """The mean over images of a profile's squared length, (units,)."""
        found: NDArray[np.float64] = np.square(self.vectors, dtype=np.float64).sum(axis=1) / self.images
        return found


def effect_profiles(
    start: Network | State,
    data: Iterable[Any],
    *,
    outcome: Outcome | str | None = None,
    intervention: str | None = None,
    units: Sequence[Unit | str] | None = None,
    progress: bool = False,
) -> Profiles:
    """The effect profile of every unit.

    Args:
        start: a traced model, or a state of it: profiles are then conditional on what is gone.
        data: batches; labels are not used.
        outcome: whose directions profiles are in (default `LogitShift`, of other outputs `OutputShift`).
        intervention: `zero` (default), `mean`, `optimal`, `closed-form`, `resample` or `carried`.
        units: which units (default: all that are still there).
        progress: show a progress bar.

    Raises:
        InputError: there is no data, or a network that mixes images.
    """
    state, asked = judged(start, outcome)
    if not isinstance(asked, Quadratic):
        state, asked = judged(start, None)
    replay = Replay.of(state)
    dense = reference(state, replay)
    chosen = chosen_units(state, units)
    plans = suffixes(replay, chosen)
    batches = list(rebatched(entered(data, state.network), replay, plans))
    if not batches:
        raise InputError("there is no data: effect profiles are measured on images")
    measured = asked.fit(torch.cat([dense.logits(b) for b in batches]))
    assert isinstance(measured, Quadratic)
    value = Intervention(checked(intervention)).fit(replay, batches, measured, chosen, progress=progress)
    images = sum(map(len, batches))
    sketch = _Sketch(max(1, MOST_BYTES // (4 * len(chosen) * images)))
    parts: list[Tensor] = []
    with Progress(progress) as bars:
        bar = bars.add("Measuring effect profiles", len(batches) * len(chosen))
        for batch in batches:
            rows, blocks = rows_on_batch(replay, batch, plans, value)
            plain, own = measured.directions(rows), []
            for block in blocks:
                own += [sketch(measured.directions(changed) - plain) for changed in block]
                bars.advance(bar, len(block))
            parts.append(torch.stack(own))
            sketch.seen += len(batch)
    vectors = torch.cat(parts, dim=1) / float(measured.scale or 1.0) ** 0.5
    share = relative_cost(state.network, plans)
    return Profiles(
        units=tuple(chosen),
        vectors=vectors.flatten(1).numpy(),
        images=images,
        columns=vectors.shape[2],
        sketched=sketch.used,
        outcome=measured.name,
        intervention=value.value,
        forward_passes=(plain_cost(state) + share * len(chosen)) * images + value.forward_passes,
    )


@dataclass
class _Sketch:
    """Rows of at most so many columns: of wider ones, sums under random signs, others for every image.

    Attributes:
        columns: the most there may be.
        seen: images of earlier batches: the image's number is what its signs are drawn from.
        used: whether any row was wider.
    """

    columns: int
    seen: int = 0
    used: bool = False
    _key: tuple[int, int, int] = (-1, 0, 0)
    _kept: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))

    def __call__(self, rows: Tensor) -> Tensor:
        """(images, F) as (images, at most `columns`), in single precision."""
        rows = rows.float().cpu()
        if rows.shape[1] <= self.columns:
            return rows
        self.used = True
        signs, places = self._drawn(self.seen, *rows.shape)
        return torch.zeros(len(rows), self.columns).scatter_add_(1, places, rows * signs)

    def _drawn(self, first: int, images: int, width: int) -> tuple[Tensor, Tensor]:
        """Signs and places, (images, width) each; the same for all units."""
        if self._key != (first, images, width):
            generators = [torch.Generator().manual_seed(first + k) for k in range(images)]
            signs = torch.stack([torch.randint(0, 2, (width,), generator=g) * 2.0 - 1.0 for g in generators])
            places = torch.stack([torch.randint(0, self.columns, (width,), generator=g) for g in generators])
            self._key, self._kept = (first, images, width), (signs, places)
        return self._kept
