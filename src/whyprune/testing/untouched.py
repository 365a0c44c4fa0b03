"""What is checked must leave its network alone; a network that checks share is put back, whatever was done to it."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def left_alone(*models: nn.Module) -> Iterator[None]:
    """Puts models back as they were, and says what was changed: numbers, training mode, gradients.

    Raises:
        AssertionError: what was run changed a model.
    """
    before = [copy.deepcopy(model.state_dict()) for model in models]
    modes = [{name: part.training for name, part in model.named_modules()} for model in models]
    said = ""
    try:
        yield
    finally:
        for model, tensors, training in zip(models, before, modes, strict=True):
            said = said or _changed(model, tensors, training)
            model.load_state_dict(tensors)
            for name, part in model.named_modules():
                part.training = training.get(name, False)
            for parameter in model.parameters():
                parameter.grad = None
    assert not said, said


def _changed(model: nn.Module, tensors: dict[str, torch.Tensor], training: dict[str, bool]) -> str:
    """What is not as it was, in a sentence; empty for nothing."""
    for name, tensor in model.state_dict().items():
        if not torch.equal(tensor, tensors[name]):
            return f"the network's {name} was changed"
    if any(part.training != training.get(name) for name, part in model.named_modules()):
        return "the network was left in another mode: call eval() and train() on a copy"
    held = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    if held:
        return f"gradients were left in the network's {held[0]}: take them on a copy, or by torch.autograd.grad"
    return ""
