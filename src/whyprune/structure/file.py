"""A saved result: `plan.json` and `model.safetensors`, replayed on a fresh model.

Nothing is pickled or executed.
"""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from safetensors.torch import save
from torch import nn

from whyprune.atomic import atomic_file
from whyprune.errors import FormatError, InputError
from whyprune.models.weights import load_weights
from whyprune.structure.copies import duplicate
from whyprune.structure.plan import Plan, check_plan, replay_plan
from whyprune.structure.trace import trace
from whyprune.structure.widen import check_widening
from whyprune.structure.widening import replay_widening
from whyprune.structure.wrapped import unwrapped

PLAN, WEIGHTS = "plan.json", "model.safetensors"
MAX_PLAN_BYTES = 256 * 2**20


def save_plan(plan: Plan, folder: Path) -> None:
    """Writes `plan.json`."""
    with atomic_file(folder / PLAN) as path:
        path.write_text(plan.model_dump_json(indent=1), encoding="utf-8")


def read_plan(folder: str | Path) -> Plan:
    """Reads `plan.json`.

    Raises:
        FormatError: it is missing, too large, or no valid plan.
    """
    path = Path(folder) / PLAN
    if not path.is_file():
        raise FormatError(f"{path} does not exist: give the folder that `whyprune prune --out` wrote")
    if path.stat().st_size > MAX_PLAN_BYTES:
        raise FormatError(f"{path} has {path.stat().st_size:,} bytes: no plan is that large")
    try:
        return Plan.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(ascii(p).strip("'") for p in first["loc"]) or "the file"
        raise FormatError(f"{path} is no valid plan: {place}: {first['msg']}") from error


def save_weights(model: nn.Module, folder: Path) -> None:
    """Writes `model.safetensors`; shared tensors are written once."""
    tensors, seen = {}, set()
    for name, tensor in model.state_dict().items():
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        if tensor.numel() and key in seen:
            continue
        seen.add(key)
        tensors[name] = tensor.detach().cpu().contiguous()
    with atomic_file(folder / WEIGHTS) as path:
        path.write_bytes(save(tensors))  # a full disk is an OSError, which save_file hides


def load(fresh_model: nn.Module, folder: str | os.PathLike[str], *, example_inputs: Any = None) -> nn.Module:
    """Replays a saved plan on a fresh instance of the model and loads the pruned weights into it.

    Args:
        fresh_model: built exactly as before pruning (any weights); it is not changed.
        folder: what `Result.save` or `whyprune prune --out` wrote.
        example_inputs: as for `trace`. For files that you do not trust: the model is then traced, and the plan must be
            a removal of whole units of it, with just the attributes that follow and the cost that it says.

    Raises:
        FormatError: a file is missing, corrupt or hostile, or does not fit the model.
        InputError: `fresh_model` does not run on `example_inputs`.
        TraceError: it cannot be traced.
    """
    if not isinstance(folder, str | os.PathLike):
        raise InputError(f"folder={folder!r:.60}: give the path of the folder that Result.save wrote")
    plan, fresh_model = read_plan(Path(folder)), unwrapped(fresh_model)
    pruned = replay_plan(fresh_model, plan)
    load_weights(pruned, Path(folder) / WEIGHTS)
    if example_inputs is not None:
        _check_by_trace(fresh_model, plan, example_inputs)
    return pruned.eval()


def _check_by_trace(model: nn.Module, plan: Plan, example_inputs: Any) -> None:
    """Heads may have gone whole or by their width: the plan has to fit one of the two."""
    model = duplicate(model).eval()
    try:
        _check_traced(model, plan, example_inputs, "whole")
    except FormatError:
        _check_traced(model, plan, example_inputs, "width")


def _check_traced(model: nn.Module, plan: Plan, example_inputs: Any, heads: Literal["whole", "width"]) -> None:
    network = trace(model, example_inputs, heads=heads)
    if plan.widening is not None:
        check_widening(network, plan.widening)
        network = trace(replay_widening(model, plan.widening), example_inputs, heads=heads)
    check_plan(network, plan)
