"""The optimiser and the averaged weights, and the optimiser's state as named tensors."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from whyprune.errors import FormatError, InputError
from whyprune.recovery.checkpoint import Tensors
from whyprune.recovery.config import Recovery


def make_optimizer(net: nn.Module, recovery: Recovery) -> torch.optim.Optimizer:
    """The optimiser of the parameters that require a gradient; the learning rate is set before every step.

    Raises:
        InputError: there is no such parameter.
    """
    parameters = [p for p in net.parameters() if p.requires_grad]
    if not parameters:
        raise InputError("no parameter of the network requires a gradient: there is nothing to recover")
    if recovery.optimizer == "adamw":
        return torch.optim.AdamW(parameters, recovery.learning_rate, weight_decay=recovery.weight_decay)
    return torch.optim.SGD(parameters, recovery.learning_rate, recovery.momentum, weight_decay=recovery.weight_decay)


def make_average(net: nn.Module, decay: float, device: torch.device) -> AveragedModel:
    """An exponential moving average of all parameters and buffers; the first update copies."""
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(net, device, multi_avg_fn=average, use_buffers=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """A copy of the optimiser's state on the CPU, as `parameter number.name`."""
    states = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": value.detach().to("cpu", copy=True).contiguous()
        for index, state in states.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Writes such a copy back.

    Raises:
        FormatError: a tensor that does not fit the parameters.
    """
    own = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        fits = index.isdecimal() and int(index) < len(parameters)
        if not fits or (key != "step" and tensor.shape != parameters[int(index)].shape):
            raise FormatError(f"the checkpoint's optimiser tensor {name!r} does not fit the network")
        states.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": own["param_groups"]})
