"""What is tried on one batch before a training starts."""

import torch
from torch import Tensor, nn

from whyprune.devices.evaluation import device_of
from whyprune.errors import DivergedError, InputError
from whyprune.recovery.config import Recovery
from whyprune.recovery.job import Logits
from whyprune.recovery.sources import checked_labels, class_numbers
from whyprune.recovery.split import Parts


@torch.no_grad()
def check_first_batch(net: nn.Module, dense: nn.Module | None, parts: Parts, logits: Logits, recovery: Recovery) -> int:
    """Runs both networks on one batch, so that what cannot work ends here; gives the number of classes K."""
    raw = next(parts.train.batches(1))
    shapes = {
        name: _checked_logits(logits(network.eval(), raw.to(device_of(network))), len(raw), name)
        for name, network in (("the network", net), ("the dense network", dense))
        if network is not None
    }
    if len(set(shapes.values())) > 1:
        raise InputError(f"the logits differ in shape: {shapes}; distil from a network with the same classes")
    classes = shapes["the network"][1]
    checked_labels(raw, classes, needed=recovery.distill < 1)
    if parts.labels is not None:
        class_numbers(parts.labels, classes)
    return classes


@torch.no_grad()
def runs_channels_last(net: nn.Module, dense: nn.Module | None, parts: Parts, logits: Logits) -> bool:
    """Whether both networks run on images with channels last, which trains faster; `view` on activations does not."""
    raw = next(parts.train.batches(1))[slice(0, 1)]
    if not any(t.dim() == 4 for t in raw.tensors()):
        return False
    try:
        for network in filter(None, (net, dense)):
            logits(network.eval(), raw.to(device_of(network)).channels_last())
    except (RuntimeError, InputError):
        return False
    return True


def _checked_logits(logits: Tensor, rows: int, name: str) -> tuple[int, int]:
    if logits.dim() != 2 or logits.shape[0] != rows:
        raise InputError(f"{name} gives logits of shape {tuple(logits.shape)} for {rows} rows: recovery needs (B, K)")
    if not bool(torch.isfinite(logits).all()):
        raise DivergedError(f"{name} gives NaN or infinite logits before training: its weights are broken")
    return rows, int(logits.shape[1])
