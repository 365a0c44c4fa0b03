"""A program of `torch.export` (.pt2), for the shapes of the example."""

from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram

from whyprune.data.batches import Batch
from whyprune.devices.artifacts.positional import positional


def program(model: nn.Module, example: Batch) -> ExportedProgram:
    """The model as a function of the example's tensors, for their shapes.

    Raises:
        Exception: of many kinds, from the exporter, where it cannot follow the model's code.
    """
    return torch.export.export(*positional(model, example), strict=False)


def write(model: nn.Module, example: Batch, path: Path) -> None:
    """Writes the program with its weights."""
    torch.export.save(program(model, example), path)
