"""Measures networks on a device: accuracy, latency, and the file that runs there."""

from whyprune.devices.accuracy import Accuracy, LabelsError, accuracy, paired_difference
from whyprune.devices.base import Device, Measurement, shown
from whyprune.devices.bundle import MeasurementRequest, write_bundle
from whyprune.devices.latency import TorchDevice, latency_ratio, measure_latency
from whyprune.devices.local import LocalDevice
from whyprune.devices.machine import library_versions, machine_state
from whyprune.devices.onnx_file import export_onnx
from whyprune.devices.registry import device
from whyprune.devices.returned import read_results
from whyprune.devices.ssh import RemoteDevice

__all__ = [
    "Accuracy",
    "Device",
    "LabelsError",
    "LocalDevice",
    "Measurement",
    "MeasurementRequest",
    "RemoteDevice",
    "TorchDevice",
    "accuracy",
    "device",
    "export_onnx",
    "latency_ratio",
    "library_versions",
    "machine_state",
    "measure_latency",
    "paired_difference",
    "read_results",
    "shown",
    "write_bundle",
]
