"""From names and result folders to a bundle that a device measures."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from whyprune.data.batches import Batch
from whyprune.devices import MeasurementRequest, write_bundle
from whyprune.errors import InputError
from whyprune.models import BUILT_INS, load_weights
from whyprune.pipeline.result import RESULT
from whyprune.workspace.folder import load_pruned, read_record
from whyprune.workspace.recipe import Recipe
from whyprune.workspace.setup import ImageShape, network_and_example


def bundle_models(
    models: Sequence[str],
    path: str | Path,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    input_shape: Sequence[int] | None = None,
    model: str | None = None,
    request: MeasurementRequest | None = None,
    seed: int = 0,
) -> Path:
    """Writes a bundle of named networks on random inputs of their shape: times do not depend on the pixels.

    Args:
        models: result folders, by which the pruned network is meant, and at most one name of a network.
        path: as for `write_bundle`.
        weights: of the named network; a built-in network needs them.
        num_classes: of the named network.
        input_shape: (C, H, W) of one input of the named network; a built-in network has one.
        model: as for `load_pruned`, for result folders of networks from the user's own code.
        request: what is to be measured.
        seed: of the inputs.

    Raises:
        InputError: nothing to measure, two names, networks that take different inputs, or as `write_bundle`.
        FormatError: files that are missing, damaged or do not fit.
    """
    named = [m for m in models if not _is_result(m)]
    if len(named) > 1:
        raise InputError(f"{', '.join(named)} are names of networks: give one name, and result folders beside it")
    networks: dict[str, nn.Module] = {}
    shapes: dict[str, ImageShape] = {}
    for spec in models:
        name = _name(spec)
        if name in networks:
            raise InputError(f"two networks would be called {name!r}: rename a folder")
        if _is_result(spec):
            networks[name], shapes[name] = load_pruned(spec, model), Recipe.of(read_record(spec)).image_shape
        else:
            networks[name], shapes[name] = _named(spec, weights, num_classes, input_shape)
    if len(set(shapes.values())) != 1:
        raise InputError(f"the networks take inputs of different shapes, {shapes}: they cannot be measured together")
    chosen = request or MeasurementRequest()
    size = max(2, chosen.batch_size)
    inputs = torch.randn(size, *next(iter(shapes.values())), generator=torch.Generator().manual_seed(seed))
    return write_bundle(networks, Batch((inputs,), {}), path, chosen)


def _is_result(spec: str) -> bool:
    return (Path(spec) / RESULT).is_file()


def _name(spec: str) -> str:
    """What a network is called in the bundle: a folder's name, or the last part of a spec."""
    text = Path(spec).absolute().name if _is_result(spec) else re.split(r"[:/]", spec)[-1]
    return re.sub(r"[^A-Za-z0-9._-]", "-", text).lstrip("._-")[:64] or "network"


def _named(
    spec: str, weights: str | Path | None, num_classes: int | None, input_shape: Sequence[int] | None
) -> tuple[nn.Module, ImageShape]:
    if weights is None and spec in BUILT_INS:
        raise InputError(f"the built-in network {spec} is untrained: give its weights, --weights FILE")
    network, example = network_and_example(spec, num_classes=num_classes, input_shape=input_shape)
    if weights is not None:
        load_weights(network, weights)
    _, channels, height, width = example.shape
    return network, (channels, height, width)
