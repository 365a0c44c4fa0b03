"""A named network with its weights, and the data with as many channels as that network takes."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from whyprune.data import DataSource
from whyprune.errors import FormatError, InputError, WhypruneError
from whyprune.models import load_model, load_weights

GREY, COLOUR = 1, 3


def network_for(
    model: str, weights: str | Path | None, classes: int | None, source: DataSource, *, fresh_seed: int | None = None
) -> tuple[nn.Module, DataSource, tuple[str, ...]]:
    """The network in evaluation mode, the data as it takes it, and what is to be said of both.

    The network, with its weights, decides how many channels images have: where it does not take those of the data, grey
    images become three equal channels, and colour images grey.

    Args:
        model: as `load_model` reads it.
        weights: a file of weights, or None for those that the network brings along.
        classes: of the data; None where they are not known.
        source: the data.
        fresh_seed: of fresh weights, in place of those that the network brings along; None for these.

    Raises:
        InputError, FormatError: the network cannot be made, or weights do not fit, for any number of channels.
    """
    first: WhypruneError | None = None
    for channels in _candidates(source):
        shape = (channels, *source.image_shape[1:])
        try:
            network = _made(model, classes, shape, weights, fresh_seed)
            said = "" if weights is None else load_weights(network, weights)
        except (FormatError, InputError) as error:
            first = first or error
            continue
        if channels == source.image_shape[0] and not _takes(network, shape) and _takes_other(network, source):
            continue  # a network of fixed channels, which says nothing about them until it runs
        matched = source.with_channels(channels)
        return network, matched, (*matched.notes, *([said] if said else []))
    assert first is not None
    raise first


def _made(
    model: str, classes: int | None, shape: tuple[int, int, int], weights: str | Path | None, fresh_seed: int | None
) -> nn.Module:
    """The network as it comes, or with fresh weights drawn by a seed; torch's own generator goes on as before."""
    if fresh_seed is None:
        return load_model(model, num_classes=classes, image_shape=shape, pretrained=weights is None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fresh_seed)
        return load_model(model, num_classes=classes, image_shape=shape, pretrained=False)


def _candidates(source: DataSource) -> Iterator[int]:
    own = source.image_shape[0]
    yield own
    if own in (GREY, COLOUR) and not (own == COLOUR and source.train.normalized):
        yield GREY + COLOUR - own


def _takes_other(network: nn.Module, source: DataSource) -> bool:
    return any(_takes(network, (c, *source.image_shape[1:])) for c in list(_candidates(source))[1:])


def _takes(network: nn.Module, shape: tuple[int, int, int]) -> bool:
    """Whether a network runs on images of this shape."""
    try:
        with torch.inference_mode():
            network(torch.zeros(2, *shape))
    except Exception:  # noqa: BLE001 - a network's own code may raise anything on what it is not made for
        return False
    return True
