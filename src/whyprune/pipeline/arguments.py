"""What `prune` is given, checked before any work: every argument of the wrong kind ends in one message."""

import os
from collections.abc import Callable
from typing import Any

from torch import nn

from whyprune.allocation import Budget, Constraints
from whyprune.errors import InputError
from whyprune.pipeline.settings import Settings
from whyprune.recovery import Recovery
from whyprune.structure.wrapped import prepared_for_quantisation, unwrapped

FORMS: dict[str, tuple[tuple[type, ...], str]] = {
    "budget": ((Budget,), "a Budget, such as Budget(macs=0.5)"),
    "constraints": ((Constraints,), "Constraints, such as Constraints(round_to=8)"),
    "settings": ((Settings,), "Settings, such as Settings(refute=False)"),
    "training": ((Recovery,), "a Recovery, such as Recovery(epochs=5)"),
    "recovery": ((Recovery,), "a Recovery, such as Recovery(epochs=5)"),
    "workspace": ((str, os.PathLike), "the path of a folder"),
    "asked": ((dict,), "a dict of facts to record"),
    "seed": ((int,), "a whole number"),
}
"""Argument -> its kinds, and how it is written."""
NEEDED = ("budget", "seed")
MOST_SEEDS = 2**32
"""As many as every library that draws takes."""


def checked_arguments(model: Any, data: Any, example_inputs: Any, **others: Any) -> nn.Module:
    """The network itself, without what wraps it; refuses arguments of the wrong kind.

    Args:
        model: a network.
        data: calibration data.
        example_inputs: what to trace on.
        others: further arguments of `prune`, by name.

    Raises:
        InputError: an argument is of the wrong kind, or the network cannot be pruned as it is.
    """
    network = unwrapped(model)
    if found := prepared_for_quantisation(network):
        raise InputError(
            f"the model is prepared for quantisation ({found}): prune the float model first, then quantise or prepare "
            "the pruned one"
        )
    for name, value in others.items():
        if name in FORMS and (value is not None or name in NEEDED):
            _check_form(name, value)
    _check_callable("augment", others.get("augment"), "a function (images, generator) -> images")
    if not isinstance(others.get("device"), str):
        _check_callable("device", others.get("device"), "a Device or its name, such as 'local-ort-1t'")
    if not 0 <= others["seed"] < MOST_SEEDS:
        raise InputError(f"seed={others['seed']}: give a whole number from 0 to {MOST_SEEDS - 1}")
    if data is None:
        raise InputError("data is None: give calibration batches, a DataLoader or a dataset; labels are not needed")
    if example_inputs is None:
        raise InputError(
            "example_inputs is None: give what the model takes, two or more samples: a tensor, a tuple or a dict"
        )
    return network


def _check_form(name: str, value: Any) -> None:
    kinds, form = FORMS[name]
    if isinstance(value, type) and issubclass(value, kinds):
        raise InputError(f"{name} is the class {value.__name__}: give {form}")
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise InputError(f"{name}={value!r:.80}: give {form}{_nearly(name, value)}")


def _nearly(name: str, value: Any) -> str:
    """How what was given would be written rightly, where that is plain."""
    if name == "budget" and isinstance(value, float | int) and not isinstance(value, bool):
        return f" for {value:g} of the operations"
    if name == "budget" and isinstance(value, str):
        return f", or Budget.parse({value!r})"
    if name in ("recovery", "training") and isinstance(value, int) and not isinstance(value, bool):
        return f"; {value} epochs are Recovery(epochs={value})"
    if name in ("settings", "constraints") and isinstance(value, dict):
        return f", or {name.capitalize()}(**{name})"
    return ""


def _check_callable(name: str, value: Callable[..., Any] | None, form: str) -> None:
    if value is not None and not callable(value):
        raise InputError(f"{name}={value!r:.80}: give {form}")
