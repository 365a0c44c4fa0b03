"""LiteRT's format (.tflite), written by litert-torch for the shapes of the example; images keep their layout."""

from importlib import import_module
from pathlib import Path

from torch import nn

from whyprune.data.batches import Batch
from whyprune.devices.artifacts.positional import positional


def write(model: nn.Module, example: Batch, path: Path) -> None:
    """Writes the file."""
    module, tensors = positional(model, example)
    import_module("litert_torch").convert(module, tensors).export(str(path))
