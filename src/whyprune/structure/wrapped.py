"""The network inside what people wrap around it, and modules that have to be pruned before they are made."""

from typing import Any

import torch
from torch import nn

from whyprune.errors import InputError
from whyprune.models.inner import inner

QUANTISED = (
    "torch.ao.nn.quantized",
    "torch.ao.nn.intrinsic.quantized",
    "torch.ao.nn.sparse.quantized",
    "torchao",
    "bitsandbytes",
)
"""Packages whose modules and tensors hold integers in place of weights."""
PREPARED = ("torch.ao.quantization", "torch.ao.nn.qat", "torch.ao.nn.intrinsic.qat", "pytorch_quantization")
"""Packages whose modules watch or round values, in preparation of a quantisation."""
HARMLESS = "torch.ao.quantization.stubs"


def unwrapped(model: Any) -> nn.Module:
    """The network itself: without `DataParallel`, `DistributedDataParallel` and what `torch.compile` gives.

    Raises:
        InputError: it is no `nn.Module`; or TorchScript, or quantised.
    """
    if not isinstance(model, nn.Module):
        loaded = " (load its weights into an instance of its class first)" if isinstance(model, str | dict) else ""
        if isinstance(model, type):
            raise InputError(f"the model is the class {model.__name__}: give an instance of it")
        raise InputError(f"the model is a {type(model).__name__}: give a torch.nn.Module{loaded}")
    network = inner(model)
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        raise InputError(
            "the model is TorchScript (torch.jit.script, torch.jit.trace) or holds some, and its code cannot be cut: "
            "give the nn.Module that it was made from, and script the pruned one"
        )
    if any(base.__module__.startswith("torch.export.") for base in type(network).__mro__):
        raise InputError(
            "the model is what torch.export gives, and its code cannot be cut: give the nn.Module that it was made "
            "from, and export the pruned one"
        )
    if found := _first(network, QUANTISED):
        raise InputError(f"the model is quantised ({found}): prune the float model first, then quantise the pruned one")
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if tensor.is_quantized or type(tensor).__module__.startswith(QUANTISED):
            raise InputError(
                f"the model is quantised ({name} is a {type(tensor).__name__}, {tensor.dtype}): prune the float model "
                "first, then quantise the pruned one"
            )
    return network


def prepared_for_quantisation(model: nn.Module) -> str:
    """The first module that watches or rounds values for a quantisation, in words; "" where there is none."""
    return _first(model, PREPARED)


def _first(model: nn.Module, packages: tuple[str, ...]) -> str:
    for name, module in model.named_modules():
        package = type(module).__module__
        if package.startswith(packages) and package != HARMLESS:
            return f"{name!r} is a {type(module).__name__}"
    return ""
