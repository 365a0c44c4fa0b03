"""Copies of a user's model, which do not take over what its code has computed from the weights and kept."""

import copy
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

_STATE = frozenset({"_parameters", "_buffers", "_modules"})


def duplicate(model: nn.Module, *, sharing: bool = False) -> nn.Module:
    """A deep copy in the same mode, without values that would be out of date once the copy has other weights.

    Code that keeps such values for evaluation (the biases of LeViT's attention) drops them in its `train`. Kept tensors
    with a history of gradients, which PyTorch refuses to copy, are copied without it. With `sharing` the copy has the
    same parameters and buffers, not copies of them.
    """
    kept = [t for module in model.modules() for t in _kept(module) if not t.is_leaf]
    memo: dict[int, Any] = {id(t): t.detach().clone() for t in kept}
    if sharing:
        memo |= {id(t): t for t in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, memo)
    for own, new in zip(model.parameters(), copied.parameters(), strict=False):
        vars(new).update(vars(own))  # PyTorch copies a parameter without the attributes that code has set on it
    modes = [(module, module.training) for module in copied.modules()]
    for module in _keepers(copied):
        module.train()
    for module, training in modes:
        module.training = training
    return copied


def unused(model: nn.Module) -> nn.Module:
    """The model, or a duplicate where its code keeps values between two runs."""
    return duplicate(model) if any(_keepers(model)) else model


def _keepers(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        if type(module).train is not nn.Module.train and any(True for _ in _kept(module)):
            yield module


def _kept(module: nn.Module) -> Iterator[Tensor]:
    """Tensors that a module holds outside its parameters and buffers."""
    held = {name: value for name, value in vars(module).items() if name not in _STATE}
    yield from (leaf for leaf in pytree.tree_leaves(held) if isinstance(leaf, Tensor))
