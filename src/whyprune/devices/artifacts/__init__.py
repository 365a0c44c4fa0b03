"""Networks as the files that runtimes run, one file per format."""

from whyprune.devices.artifacts.formats import FORMATS, Artifact, write_artifact
from whyprune.devices.artifacts.onnx import check_onnx
from whyprune.devices.artifacts.onnx_int8 import quantize_onnx
from whyprune.devices.artifacts.onnx_network import OnnxNetwork

__all__ = ["FORMATS", "Artifact", "OnnxNetwork", "check_onnx", "quantize_onnx", "write_artifact"]
