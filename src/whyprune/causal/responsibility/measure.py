"""Responsibility, blame, necessity and sufficiency of units, on many images at once."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats

from whyprune.causal.responsibility.contingency import Contingency, Search, Sets, search
from whyprune.causal.responsibility.event import Event
from whyprune.causal.worlds import Floats, Masks, Worlds
from whyprune.errors import InputError
from whyprune.progress import Progress
from whyprune.structure.network import Network
from whyprune.structure.units import Unit

TOGETHER = 16384
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Responsibilities:
    """Which units are causes of an event, on every image.

    Attributes:
        units: unit names.
        groups: the group of each unit.
        classes: (images,), the class that the network predicts.
        sets: (unit, image) -> the units of the smallest contingency set found; only causes are in it.
        searched: up to which size all contingency sets were tried; a set of at most one unit more is a smallest one.
        event: name of the event.
        intervention: the value v of do(unit := v).
        forwards: cost in dense forward passes of one image.
        sufficient: (units, images), True where the event holds with only this unit left of its group.
        without_group: group -> (images,), True where it holds with nothing left of the group.
    """

    units: tuple[str, ...]
    groups: tuple[str, ...]
    classes: NDArray[np.int64]
    sets: Mapping[tuple[int, int], tuple[int, ...]]
    searched: int
    event: str
    intervention: str
    forwards: float
    sufficient: Flags | None = None
    without_group: Mapping[str, Flags] = field(default_factory=dict)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(units, images): k, the size of the smallest contingency set found; -1 where there is none."""
        found = np.full((len(self.units), len(self.classes)), -1, dtype=np.int64)
        for place, others in self.sets.items():
            found[place] = len(others)
        return found

    @property
    def values(self) -> Floats:
        """(units, images): degrees of responsibility, 1 / (1 + k), or 0."""
        sizes = self.sizes
        return np.where(sizes < 0, 0.0, 1.0 / (1.0 + np.maximum(sizes, 0)))

    @property
    def necessary(self) -> Flags:
        """(units, images): True where the event ends without the unit alone (but-for)."""
        necessary: Flags = self.sizes == 0
        return necessary

    @property
    def blame(self) -> Floats:
        """(units,): expected responsibility over the images."""
        blame: Floats = self.values.mean(axis=1)
        return blame

    def table(self) -> pa.Table:
        """A row per unit and predicted class, and one over all classes (class None): blame, necessity, sufficiency.

        Probabilities over images come with 95% intervals (see `share_interval`). `sufficiency` and
        `sufficiency_of_nothing` (the event with nothing left of the group) are null where they were not measured.
        """
        columns: dict[str, list[Any]] = defaultdict(list)
        values, necessary = self.values, self.necessary
        for chosen, label in [(np.ones(len(self.classes), dtype=bool), None)] + [
            (self.classes == c, int(c)) for c in np.unique(self.classes)
        ]:
            shares = {"blame": values[:, chosen], "necessity": necessary[:, chosen]}
            if self.sufficient is not None:
                shares["sufficiency"] = self.sufficient[:, chosen]
                shares["sufficiency_of_nothing"] = np.stack([self.without_group[g][chosen] for g in self.groups])
            columns["unit"] += self.units
            columns["class"] += [label] * len(self.units)
            columns["images"] += [int(chosen.sum())] * len(self.units)
            for name in ("blame", "necessity", "sufficiency", "sufficiency_of_nothing"):
                measured = name in shares
                mean = shares[name].mean(axis=1) if measured else np.full(len(self.units), np.nan)
                low, high = share_interval(mean, int(chosen.sum()))
                for suffix, found in (("", mean), ("_low", low), ("_high", high)):
                    columns[name + suffix] += found.tolist() if measured else [None] * len(self.units)
        return pa.table(dict(columns))

    def __repr__(self) -> str:
        return f"Responsibilities({len(self.units)} units, {len(self.classes)} images, {self.event})"


def share_interval(mean: Floats, images: int) -> tuple[Floats, Floats]:
    """95% intervals for means of numbers between 0 and 1, over images: Wilson's, for the variance m (1 - m).

    No number between 0 and 1 with mean m varies more, so for responsibilities (1, 1/2, 1/3, ...) they are wider than
    they need be; unlike t-intervals they are no points where all images agree.
    """
    z = float(stats.norm.ppf(0.975))
    middle = (mean + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * np.sqrt(mean * (1 - mean) / images + (z / (2 * images)) ** 2)
    return np.minimum(middle - half, mean).clip(0, 1), np.maximum(middle + half, mean).clip(0, 1)


def responsibilities(
    network: Network,
    data: Iterable[Any],
    *,
    event: Event | None = None,
    outcome: str | None = None,
    intervention: str = "zero",
    units: Sequence[Unit | str] | None = None,
    contingency: Contingency | None = None,
    sufficiency: bool = False,
    progress: bool = False,
) -> Responsibilities:
    """Degrees of responsibility of units for an event, image by image.

    Args:
        network: a traced model.
        data: batches; labels only if the event is about an outcome that needs them.
        event: what units are causes of (default: the predicted class).
        outcome: for `Event(harm=...)`: the outcome it is about.
        intervention: the value v of do(unit := v): `zero`, `mean`, `optimal`, `resample` or `carried`.
        units: which units may be causes, and in contingency sets (default: all).
        contingency: how contingency sets are searched.
        sufficiency: also run every unit alone of its group, and no unit of it: one more run per unit and image.
        progress: show a progress bar.

    Raises:
        InputError: no data, no such unit, missing labels, an unknown name.
    """
    event = event or Event()
    named = outcome if event.harm is not None else "prediction-change"
    worlds = Worlds(network, data, outcome=named, intervention=intervention, units=units)
    return measured(worlds, event, contingency or Contingency(), sufficiency=sufficiency, progress=progress)


def measured(
    worlds: Worlds,
    event: Event,
    options: Contingency,
    *,
    images: int | None = None,
    forwards: float | None = None,
    sufficiency: bool = False,
    progress: bool = False,
) -> Responsibilities:
    """The same for the first `images` images of `worlds`, or as many as `forwards` forward passes allow."""
    found: list[Sets] = []
    count = len(worlds.units)
    wanted = worlds.images if images is None else images
    plain = event.slack(worlds, worlds.plain, np.arange(worlds.images))
    step, before = 2 if forwards else max(1, TOGETHER // (4 * count)), worlds.forwards
    with Progress(progress) as bars:
        bar = bars.add("Searching causes", wanted)
        while len(found) < wanted:
            block = np.arange(len(found), min(len(found) + step, wanted))
            found += _searched(worlds, event, {i: search(count, plain[i], options) for i in block.tolist()})
            bars.advance(bar, len(block))
            if forwards is not None:
                each = max((worlds.forwards - before) / len(found), 1e-9)
                step = min(int((forwards - worlds.forwards) / each), max(1, TOGETHER // (4 * count)))
                if step < 1:
                    break
    alone, nothing = _sufficient(worlds, event, len(found)) if sufficiency else (None, {})
    return Responsibilities(
        units=tuple(u.name for u in worlds.units),
        groups=tuple(u.group for u in worlds.units),
        classes=worlds.plain[: len(found)].argmax(dim=-1).numpy(),
        sets={(f, i): others for i, sets in enumerate(found) for f, others in sorted(sets.items())},
        searched=options.searched(count),
        event=event.name,
        intervention=worlds.value.value,
        forwards=worlds.forwards,
        sufficient=alone,
        without_group=nothing,
    )


def _searched(worlds: Worlds, event: Event, searches: Mapping[int, Search]) -> list[Sets]:
    """Runs the searches side by side: the sets that all of them ask about share a batch."""
    found: dict[int, Sets] = {}
    asked: dict[int, Masks] = {}

    def go_on(image: int, slack: Floats | None) -> None:
        try:
            asked[image] = next(searches[image]) if slack is None else searches[image].send(slack)
        except StopIteration as done:
            found[image] = done.value
            asked.pop(image, None)

    for image in searches:
        go_on(image, None)
    while asked:
        images = np.repeat(list(asked), [len(masks) for masks in asked.values()])
        slack = _slack(worlds, event, np.concatenate(list(asked.values())), images)
        ends = np.cumsum([len(masks) for masks in asked.values()])[:-1]
        for image, part in zip(list(asked), np.split(slack, ends), strict=True):
            go_on(image, part)
    return [found[image] for image in searches]


def _slack(worlds: Worlds, event: Event, masks: Masks, images: NDArray[np.int64]) -> Floats:
    return event.slack(worlds, worlds.logits(masks, images), images)


def _sufficient(worlds: Worlds, event: Event, images: int) -> tuple[Flags, dict[str, Flags]]:
    """With only one unit left of its group, the others as they are; and with nothing left of the group."""
    groups = np.array([u.group for u in worlds.units])
    same = groups[:, None] == groups[None, :]
    numbers = np.arange(images)

    def holds(sets: Iterator[Masks]) -> list[Flags]:
        return [_slack(worlds, event, np.tile(mask, (images, 1)), numbers) > 0 for mask in sets]

    alone = np.stack(holds(iter(same & ~np.eye(len(groups), dtype=bool))))
    names = list(dict.fromkeys(groups.tolist()))
    return alone, dict(zip(names, holds(groups == name for name in names), strict=True))


def checked_images(images: int) -> int:
    """The number itself.

    Raises:
        InputError: fewer than two: there is nothing to expect over.
    """
    if images < 2:
        raise InputError(f"{images} image(s) of data: blame is an expectation over at least 2")
    return images
