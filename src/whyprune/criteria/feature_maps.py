"""What a criterion of feature maps is given: the maps of every unit, as its readers see them, image by image."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from whyprune.criteria.coupled import REDUCTIONS, checked
from whyprune.data.batches import Batch
from whyprune.errors import InputError
from whyprune.scoring.contract import Question
from whyprune.scoring.paid import paid_images
from whyprune.structure.capture import module_path
from whyprune.structure.entry import entered
from whyprune.structure.network import Reader
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.units import Unit

Floats = NDArray[np.float64]
OfMaps = Callable[[Tensor], Tensor]
"""From maps (images, channels, *places) to one number per image and channel, (images, channels)."""


def map_scores(
    state: State, data: Iterable[Any], units: Sequence[Unit], of_maps: OfMaps, reduction: str | None = None
) -> tuple[Floats, int]:
    """The mean over images of a number per feature map, reduced over the tensors in which a unit is read.

    Where a unit has several channels in one tensor, their numbers are summed.

    Args:
        state: the network as it stands.
        data: batches; labels are not used.
        units: that are still there.
        of_maps: the number of every map.
        reduction: over tensors: `mean`, `sum` or `max`; None for `mean`.

    Returns:
        Scores (units,), and the number of images.

    Raises:
        InputError: there is no data.
    """
    combine = REDUCTIONS[checked(reduction)]
    tensors = seen(state)
    sums: dict[fx.Node, Tensor] = {}
    images = 0
    replay = Replay.of(state)
    for batch in entered(data, state.network):
        values = replay.run(batch, keep=tensors)
        for node, reader in tensors.items():
            found = of_maps(channels_first(state, values[node], reader, len(batch))).double().sum(dim=0)
            sums[node] = sums[node] + found if node in sums else found
        images += len(batch)
    if not images:
        raise InputError("there is no data: feature maps need images")
    places = [[(node, replay.positions(r.labels, [unit])) for node, r in tensors.items()] for unit in units]
    parts = [[float(sums[node][at].sum()) / images for node, at in own if len(at)] for own in places]
    return np.array([combine(own) if own else 0.0 for own in parts]), images


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
