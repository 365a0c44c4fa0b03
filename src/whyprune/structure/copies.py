"""Copies of a user's model, which do not take over what its code has computed from the weights and kept."""

import copy
import io
import threading
import types
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from whyprune.errors import InputError

SHARED = (types.ModuleType, type(threading.Lock()), type(threading.RLock()), io.IOBase)
"""Kinds of values that a copy of a model shares with it."""
_STATE = frozenset({"_parameters", "_buffers", "_modules"})


def duplicate(model: nn.Module, *, sharing: bool = False) -> nn.Module:
    """A deep copy in the same mode, without values that would be out of date once the copy has other weights.

    Code that keeps such values for evaluation (the biases of LeViT's attention) drops them in its `train`. Kept tensors
    with a history of gradients, which PyTorch refuses to copy, are copied without it. With `sharing` the copy has the
    same parameters and buffers, not copies of them. Python modules, locks and open files that a model holds are shared.

    Raises:
        InputError: the model holds something else that cannot be copied; the message names it.
    """
    kept = [t for module in model.modules() for t in _kept(module) if not t.is_leaf]
    memo: dict[int, Any] = {id(t): t.detach().clone() for t in kept}
    if sharing:
        memo |= {id(t): t for t in (*model.parameters(), *model.buffers())}
    copied = _deep_copy(model, memo)
    for own, new in zip(model.parameters(), copied.parameters(), strict=False):
        vars(new).update(vars(own))  # PyTorch copies a parameter without the attributes that code has set on it
    modes = [(module, module.training) for module in copied.modules()]
    for module in _keepers(copied):
        module.train()
    for module, training in modes:
        module.training = training
    return copied


def _deep_copy(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    try:
        return copy.deepcopy(model, dict(memo))
    except Exception:  # noqa: BLE001 - a user's own __deepcopy__ may raise anything; what cannot be shared is named
        shared = {id(value): value for value in _shareable(model)}
    try:
        return copy.deepcopy(model, memo | shared)
    except Exception as error:
        raise InputError(_named(model, memo | shared, error)) from error


def _shareable(model: nn.Module) -> Iterator[Any]:
    """What a model holds, however deep, that has no copy and needs none."""
    seen: set[int] = set()
    waiting: list[Any] = [vars(module) for module in model.modules()]
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, str | bytes | int | float | Tensor | type):
            continue
        seen.add(id(value))
        if isinstance(value, SHARED):
            yield value
        elif isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += value
        elif not isinstance(value, nn.Module) and hasattr(value, "__dict__"):
            waiting.append(vars(value))


def _named(model: nn.Module, memo: dict[int, Any], error: Exception) -> str:
    """The message about the attribute that cannot be copied."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name in _STATE:
                continue
            try:
                copy.deepcopy(value, dict(memo))
            except Exception:  # noqa: BLE001 - as above
                who = ".".join(filter(None, (path, name)))
                return (
                    f"the model's attribute {who!r} ({type(value).__name__}) cannot be copied: {reason}; pruning works "
                    "on copies of the model: keep it outside, set it to None meanwhile, or write a __deepcopy__"
                )
    return f"the model {type(model).__name__} cannot be copied: {reason}; pruning works on copies of it"


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
