"""Measures networks on a device: accuracy, latency, and the file that runs there."""

from whyprune.devices.accuracy import Accuracy, accuracy, paired_difference
from whyprune.devices.base import Device, Measurement
from whyprune.devices.latency import TorchDevice, latency_ratio, measure_latency
from whyprune.devices.local import Local
from whyprune.devices.machine import library_versions, machine_state
from whyprune.devices.onnx_file import export_onnx

__all__ = [
    "Accuracy",
    "Device",
    "Local",
    "Measurement",
    "TorchDevice",
    "accuracy",
    "export_onnx",
    "latency_ratio",
    "library_versions",
    "machine_state",
    "measure_latency",
    "paired_difference",
]
