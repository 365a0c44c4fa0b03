"""ExecuTorch's format (.pte), with what XNNPACK can run left to it."""

from importlib import import_module
from pathlib import Path

from torch import nn

from whyprune.data.batches import Batch
from whyprune.devices.artifacts.torch_export import program

PARTITIONER = "executorch.backends.xnnpack.partition.xnnpack_partitioner"


def write(model: nn.Module, example: Batch, path: Path) -> None:
    """Writes the file."""
    exir, partitioner = import_module("executorch.exir"), import_module(PARTITIONER)
    lowered = exir.to_edge_transform_and_lower(
        program(model, example), partitioner=[partitioner.XnnpackPartitioner()]
    ).to_executorch()
    with path.open("wb") as file:
        lowered.write_to_file(file)
