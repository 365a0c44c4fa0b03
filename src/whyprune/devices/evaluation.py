"""Running a network as it will be used: evaluation mode, no gradients, one clear error."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from whyprune.data.batches import Batch
from whyprune.devices.base import Model
from whyprune.errors import InputError


@contextmanager
def evaluation_mode(networks: Iterable[Model]) -> Iterator[None]:
    """Every module in evaluation mode; each submodule's own mode comes back after."""
    modules = [m for network in networks if isinstance(network, nn.Module) for m in network.modules()]
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, training in zip(modules, modes, strict=True):
            module.training = training


@contextmanager
def evaluating(networks: Iterable[Model]) -> Iterator[None]:
    """Evaluation mode and no gradients."""
    with evaluation_mode(networks), torch.inference_mode():
        yield


def call(network: Model, batch: Batch, name: str = "the network") -> Any:
    """The network's output on a batch; floats of a precision that it has no parameter in become its own.

    Raises:
        InputError: the network rejects these inputs (their number, names, shapes or types).
    """
    batch = _in_precision_of(network, batch)
    try:
        return network(*batch.args, **batch.kwargs)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        shapes = [f"{tuple(t.shape)} {t.dtype}" for t in batch.tensors()]
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{name} failed on inputs {', '.join(shapes)}: {reason}; give inputs as its forward takes them"
        ) from error


def _in_precision_of(network: Model, batch: Batch) -> Batch:
    parameters = network.parameters() if isinstance(network, nn.Module) else iter(())
    own = list(dict.fromkeys(p.dtype for p in parameters if p.is_floating_point()))
    if not own or all(t.dtype in own for t in batch.tensors() if t.is_floating_point()):
        return batch
    return batch.mapped(lambda t: t.to(own[0]) if t.is_floating_point() and t.dtype not in own else t)


def device_of(network: Model) -> torch.device:
    """Where the network's parameters are; the CPU for one without parameters."""
    parameters = network.parameters() if isinstance(network, nn.Module) else iter(())
    return next((p.device for p in parameters), torch.device("cpu"))
