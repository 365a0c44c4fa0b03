"""As many inputs as a device takes at once."""

import torch

from whyprune.data.batches import Batch
from whyprune.devices.base import Device


def batch_size(device: Device) -> int:
    """Samples per call on a device."""
    return int(getattr(device, "batch_size", None) or 1)


def inputs_for(device: Device, example: Batch) -> Batch:
    """The example's samples, repeated where a device takes more at once."""
    return example[torch.arange(max(batch_size(device), len(example))) % len(example)]
