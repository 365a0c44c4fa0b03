"""OpenVINO's own format (.xml and .bin), read from ONNX, for the shapes of the example."""

from importlib import import_module
from pathlib import Path

from torch import nn

from whyprune.data.batches import Batch
from whyprune.devices.artifacts import onnx


def write(model: nn.Module, example: Batch, path: Path) -> None:
    """Writes both files, in single precision. Free shapes would cost time in every call, so they are fixed."""
    openvino = import_module("openvino")
    source = path.with_suffix(".onnx")
    onnx.write(model, example, source)
    network = openvino.Core().read_model(source)
    shapes = [list(t.shape) for t in example.tensors()]
    network.reshape(dict(zip(network.inputs, shapes, strict=True)))
    openvino.save_model(network, path, compress_to_fp16=False)
    source.unlink()
