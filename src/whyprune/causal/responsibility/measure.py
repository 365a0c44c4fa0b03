"""Runs the searches for contingency sets of many images side by side, so that they share batches."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whyprune.causal.responsibility.contingency import Contingency, Search, Sets, search
from whyprune.causal.responsibility.event import Event
from whyprune.causal.responsibility.result import Flags, Responsibilities
from whyprune.errors import InputError
from whyprune.interventions.suffix import chosen_units
from whyprune.interventions.worlds import Floats, Masks, Worlds
from whyprune.progress import Progress
from whyprune.structure.network import Network
from whyprune.structure.state import State
from whyprune.structure.units import Unit

TOGETHER = 16384


def responsibilities(
    start: Network | State,
    data: Iterable[Any],
    *,
    event: Event | None = None,
    outcome: str | None = None,
    intervention: str | None = None,
    units: Sequence[Unit | str] | None = None,
    among: Sequence[Unit | str] | None = None,
    contingency: Contingency | None = None,
    sufficiency: bool = False,
    progress: bool = False,
) -> Responsibilities:
    """Degrees of responsibility of units for an event, image by image.

    Args:
        start: a traced model, or a state of it.
        data: batches; labels only if the event is about an outcome that needs them.
        event: what units are causes of (default: the predicted class).
        outcome: for `Event(harm=...)`: the outcome it is about.
        intervention: the value v of do(unit := v): `zero` (default), `mean`, `optimal`, `closed-form`, `resample` or
            `carried`.
        units: which units to judge (default: all of `among`).
        among: which units are ever intervened on: those of contingency sets and groups (default: all).
        contingency: how contingency sets are searched.
        sufficiency: also run every unit alone of its group, and no unit of it: one more run per unit and image.
        progress: show a progress bar.

    Raises:
        InputError: no data, no such unit, missing labels, an unknown name.
    """
    event = event or Event()
    named = outcome if event.harm is not None else "prediction-change"
    worlds = Worlds(start, data, outcome=named, intervention=intervention, units=among)
    options = contingency or Contingency()
    return measured(worlds, event, options, units=units, sufficiency=sufficiency, progress=progress)


def measured(
    worlds: Worlds,
    event: Event,
    options: Contingency,
    *,
    units: Sequence[Unit | str] | None = None,
    images: int | None = None,
    forward_passes: float | None = None,
    sufficiency: bool = False,
    progress: bool = False,
) -> Responsibilities:
    """The same for the first `images` images of `worlds`, or as many as `forward_passes` forward passes allow."""
    found: list[Sets] = []
    count = len(worlds.units)
    total = worlds.images if images is None else images
    wanted = _numbers(worlds, units)
    plain = event.slack(worlds, worlds.plain, np.arange(worlds.images))
    step, before = 2 if forward_passes else max(1, TOGETHER // (4 * count)), worlds.forward_passes
    with Progress(progress) as bars:
        bar = bars.add("Searching causes", total)
        while len(found) < total:
            block = np.arange(len(found), min(len(found) + step, total))
            found += _searched(worlds, event, {i: search(count, plain[i], options, wanted) for i in block.tolist()})
            bars.advance(bar, len(block))
            if forward_passes is not None:
                each = max((worlds.forward_passes - before) / len(found), 1e-9)
                step = min(int((forward_passes - worlds.forward_passes) / each), max(1, TOGETHER // (4 * count)))
                if step < 1:
                    break
    alone, nothing = _sufficient(worlds, event, wanted, len(found)) if sufficiency else (None, {})
    return Responsibilities(
        units=tuple(worlds.units[f].name for f in wanted),
        groups=tuple(worlds.units[f].group for f in wanted),
        classes=_classes(worlds, len(found)),
        sets={
            (place, i): tuple(worlds.units[g].name for g in sets[f])
            for i, sets in enumerate(found)
            for place, f in enumerate(wanted)
            if f in sets
        },
        searched=options.searched(count),
        event=event.name,
        intervention=worlds.value.value,
        forward_passes=worlds.forward_passes,
        sufficient=alone,
        without_group=nothing,
    )


def _classes(worlds: Worlds, images: int) -> NDArray[np.int64]:
    """The predicted class of each image; -1 where the output has none."""
    if not worlds.network.outputs.is_logits:
        return np.full(images, -1)
    found: NDArray[np.int64] = worlds.plain[:images].argmax(dim=-1).numpy()
    return found


def _numbers(worlds: Worlds, units: Sequence[Unit | str] | None) -> list[int]:
    """The places of units among those of `worlds`."""
    chosen = {u.name for u in chosen_units(worlds.state, units)}
    places = [k for k, u in enumerate(worlds.units) if u.name in chosen]
    if units is not None and len(places) < len(chosen):
        raise InputError(f"{len(chosen) - len(places)} units to judge are not among those that may be intervened on")
    return places


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


def _sufficient(worlds: Worlds, event: Event, wanted: Sequence[int], images: int) -> tuple[Flags, dict[str, Flags]]:
    """With only one unit left of its group, the others as they are; and with nothing left of the group."""
    groups = np.array([u.group for u in worlds.units])
    same = groups[:, None] == groups[None, :]
    numbers = np.arange(images)

    def holds(sets: Iterator[Masks]) -> list[Flags]:
        return [_slack(worlds, event, np.tile(mask, (images, 1)), numbers) > 0 for mask in sets]

    alone = np.stack(holds(iter((same & ~np.eye(len(groups), dtype=bool))[list(wanted)])))
    names = list(dict.fromkeys(groups[list(wanted)].tolist()))
    return alone, dict(zip(names, holds(groups == name for name in names), strict=True))


def checked_images(images: int) -> int:
    """The number itself.

    Raises:
        InputError: fewer than two: there is nothing to expect over.
    """
    if images < 2:
        raise InputError(f"{images} image(s) of data: blame is an expectation over at least 2")
    return images
