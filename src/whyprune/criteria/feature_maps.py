"""What a criterion of feature maps is given: the maps of every unit, as its readers see them, image by image."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from whyprune.criteria.answer import scored
from whyprune.criteria.coupled import REDUCTIONS, checked
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.errors import InputError
from whyprune.interventions.suffix import chosen_units
from whyprune.scoring.contract import Question
from whyprune.scoring.paid import paid_images
from whyprune.structure.capture import module_path
from whyprune.structure.entry import entered
from whyprune.structure.labels import Labels
from whyprune.structure.network import Network, Reader
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.units import Unit

OfMaps = Callable[[Tensor], Tensor]
"""From maps (images, channels, *places) to one number per image and channel, (images, channels)."""


def scored_maps(
    start: Network | State,
    data: Iterable[Any],
    units: Sequence[Unit | str] | None,
    of_maps: OfMaps,
    reduction: str | None,
    *,
    method: str,
) -> Effects:
    """The mean over images of a number per feature map, reduced over the tensors in which a unit is read.

    Where a unit has several channels in one tensor, their numbers are summed.

    Args:
        start: a traced model, or a state of it.
        data: batches; labels are not used.
        units: which units; None for all that are there.
        of_maps: the number of every map.
        reduction: over tensors: `mean`, `sum` or `max`; None for `mean`.
        method: what the scores are called.

    Raises:
        InputError: there is no data, another reduction, or an unknown unit.
    """
    state = State.of(start)
    chosen, combine = chosen_units(state, units), REDUCTIONS[checked(reduction)]
    sums, images = summed_maps(state, data, of_maps)
    labels = {node: reader.labels for node, reader in seen(state).items()}
    parts = [[own / images for own in parts] for parts in by_tensor(Replay.of(state), chosen, sums, labels)]
    scores = [combine(own) if own else 0.0 for own in parts]
    return scored(state, chosen, scores, method=method, samples=images, forward_passes=float(images))


def summed_maps(state: State, data: Iterable[Any], of_maps: OfMaps) -> tuple[dict[fx.Node, Tensor], int]:
    """Tensor in which units are read -> what its maps give, summed over images, float64; and the number of images.

    Raises:
        InputError: there is no data, or maps of several sizes give what cannot be added up.
    """
    sums: dict[fx.Node, Tensor] = {}
    images = 0
    for count, maps in maps_of(state, data):
        for node, own in maps.items():
            found = of_maps(own).double().sum(dim=0)
            if node in sums and sums[node].shape != found.shape:
                raise InputError("feature maps of several sizes have no mean: give images of one size")
            sums[node] = sums[node] + found if node in sums else found
        images += count
    check_images(images)
    return sums, images


def maps_of(state: State, data: Iterable[Any]) -> Iterator[tuple[int, dict[fx.Node, Tensor]]]:
    """Batch by batch the number of images, and tensor in which units are read -> maps (images, channels, *places).

    Raises:
        InputError: images are mixed in a tensor, or it holds NaN or infinite numbers.
    """
    replay, tensors = Replay.of(state), seen(state)
    for batch in entered(data, state.network):
        values = replay.run(batch, keep=tensors)
        yield len(batch), {n: channels_first(state, values[n], r, len(batch)) for n, r in tensors.items()}


def check_images(images: int) -> None:
    """Refuses data without images.

    Raises:
        InputError: there are none.
    """
    if not images:
        raise InputError("there is no data: feature maps need images")


def by_tensor(
    replay: Replay, units: Sequence[Unit], numbers: Mapping[fx.Node, Tensor], labels: Mapping[fx.Node, Labels]
) -> list[list[float]]:
    """Of every unit the numbers of its channels, summed in each tensor that has any.

    Args:
        replay: of the network as it stands.
        units: that are still there.
        numbers: tensor -> a number per channel.
        labels: tensor -> which unit each of its channels is of.
    """
    places = [[(node, replay.positions(labels[node], [unit])) for node in numbers] for unit in units]
    return [[float(numbers[node][at].sum()) for node, at in own if len(at)] for own in places]


def unit_vectors(state: State, units: Sequence[Unit], tables: Mapping[fx.Node, Tensor]) -> list[Tensor]:
    """(units, numbers) of every table (channels, numbers) in which all units have as many channels, side by side.

    Args:
        state: the network as it stands.
        units: of one group.
        tables: tensor in which units are read -> numbers of its channels.
    """
    replay, tensors = Replay.of(state), seen(state)
    found = []
    for node, table in tables.items():
        places = [replay.positions(tensors[node].labels, [unit]) for unit in units]
        if all(len(at) for at in places) and len({len(at) for at in places}) == 1:
            found.append(torch.stack([table[at].flatten() for at in places]))
    return found


def seen(state: State) -> dict[fx.Node, Reader]:
    """Every tensor in which a unit is read, with one of its readers."""
    return {reader.data: reader for reader in Replay.of(state).network.readers}


def channels_first(state: State, value: Tensor, reader: Reader, images: int) -> Tensor:
    """(images, channels, *places) of what a reader sees, wherever images and channels lie in it.

    Raises:
        InputError: images are mixed in it, or it holds NaN or infinite numbers.
    """
    if not bool(torch.isfinite(value).all()):
        where = module_path(reader.node) or reader.node.name
        raise InputError(
            f"what {where!r} reads holds NaN or infinite numbers on the calibration images: look at these images and "
            "at the weights before it"
        )
    place = state.network.batch_place(reader.data)
    if place is None:  # the same for all images
        return value.unsqueeze(0).expand(images, *value.shape).movedim(reader.dim + 1, 1)
    return place.front(value, images).movedim(place.in_front(reader.dim), 1)


def as_matrices(maps: Tensor) -> Tensor:
    """(images, channels, H, W): the last dimension is W, all others before it are H."""
    while maps.dim() < 4:
        maps = maps.unsqueeze(2)
    return maps.flatten(2, -2) if maps.dim() > 4 else maps


def flat(maps: Tensor) -> Tensor:
    """(images, channels, places) in float64."""
    return maps.unsqueeze(-1).flatten(2).to(torch.float64)


def affordable(batches: Sequence[Batch], question: Question) -> list[Batch]:
    """As many of the first images as the question's budget pays for, at one forward pass each.

    Raises:
        InputError: it pays for none.
    """
    return paid_images(batches, question.forward_passes, 1.0)
