"""A recovery on disk: one safetensors file with a JSON header, written whole or not at all, never pickled."""

import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from whyprune.atomic import atomic_file
from whyprune.errors import FormatError, InputError
from whyprune.recovery.config import first_problem
from whyprune.results import Record, RecoveryEpoch

Tensors = dict[str, Tensor]

HEADER = "whyprune.recovery"
SCHEMA: Literal[2] = 2
_NORM_TOLERANCE = 1e-4


class TensorPrint(Record):
    """What tells one model's tensor from another's of the same shape, whatever the last bits are."""

    shape: list[int]
    dtype: str
    norm: float


class TrainingOrigin(Record):
    """What the training started from; a resumed run must start from the same."""

    recovery: dict[str, Any]
    seed: int
    data: dict[str, int]
    model: dict[str, TensorPrint]
    dense: dict[str, TensorPrint] = Field(default_factory=dict)
    penalty: str | None = None
    units: int = 0


class TrainingState(Record):
    """Where a training stands: in `epoch` (from 1), after `step` of its steps."""

    epoch: int = 1
    step: int = 0
    loss_sum: float = 0.0
    penalty_sum: float = 0.0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    history: list[RecoveryEpoch] = Field(default_factory=list)
    best_epoch: int = 0
    best_score: float | None = None


class Saved(Record):
    """The JSON header of a checkpoint; `checksum` is the CRC-32 of the rest of it and of all tensors."""

    schema_version: Literal[2] = SCHEMA
    origin: TrainingOrigin
    state: TrainingState
    scaler: dict[str, float | int] = Field(default_factory=dict)
    checksum: int = 0


def named_tensors(module: nn.Module) -> Tensors:
    """All parameters and buffers, tied ones under each name, without copying."""
    parameters = module.named_parameters(remove_duplicate=False)
    buffers = module.named_buffers(remove_duplicate=False)
    return {name: tensor.detach() for name, tensor in (*parameters, *buffers)}


def snapshot(module: nn.Module) -> Tensors:
    """A copy of all parameters and buffers, on the CPU."""
    return {name: t.to("cpu", copy=True).contiguous() for name, t in named_tensors(module).items()}


def restore(module: nn.Module, tensors: Tensors) -> None:
    """Writes a snapshot into a module of the same shapes, wherever that module is.

    Raises:
        FormatError: a tensor is missing, unknown, or of another shape or type.
    """
    own = named_tensors(module)
    for name in sorted(own.keys() ^ tensors.keys()):
        raise FormatError(f"the checkpoint and the network do not both have the tensor {name!r}")
    for name, tensor in own.items():
        other = tensors[name]
        if (other.shape, other.dtype) != (tensor.shape, tensor.dtype):
            raise FormatError(f"the checkpoint's tensor {name!r} is {tuple(other.shape)} {other.dtype}")
        tensor.copy_(other)


def fingerprint(module: nn.Module) -> dict[str, TensorPrint]:
    """Shape, type and Euclidean norm of every parameter and buffer."""

    def norm(tensor: Tensor) -> float:
        return float(torch.linalg.vector_norm(tensor.double())) if tensor.is_floating_point() else 0.0

    return {
        name: TensorPrint(shape=list(t.shape), dtype=str(t.dtype), norm=norm(t))
        for name, t in named_tensors(module).items()
    }


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    """The same tensors under `prefix.name`."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Tensors) -> Tensors:
    """The tensors under `prefix`, without it."""
    start = f"{prefix}."
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


def write(path: Path, saved: Saved, tensors: Tensors) -> None:
    """Writes a checkpoint over the previous one; if that fails the previous one stays.

    Raises:
        InputError: the folder is missing, not writable, or the disk is full.
    """
    sealed = saved.model_copy(update={"checksum": _checksum(saved, tensors)})
    try:
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            file.write(save(tensors, {HEADER: sealed.model_dump_json()}))
            file.flush()
            os.fsync(file.fileno())
    except InputError as error:
        raise InputError(
            f"recovery stopped, its checkpoint could not be written: {error}. A checkpoint written "
            "earlier is intact: free some space and resume"
        ) from error


def read(path: Path, origin: TrainingOrigin) -> tuple[Saved, Tensors]:
    """Reads a checkpoint of the same recovery.

    Raises:
        FormatError: the file is missing, corrupt, or of another recovery; says which field differs.
    """
    try:
        with safe_open(path, framework="pt") as file:
            saved = _header(path, (file.metadata() or {})[HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except KeyError:
        raise FormatError(f"{path} is no recovery checkpoint (no {HEADER!r} in its header)") from None
    except ValidationError as error:
        raise FormatError(f"{path} is not a checkpoint of this version: {first_problem(error)}") from None
    except (OSError, SafetensorError) as error:
        raise FormatError(f"cannot read the checkpoint {path}: {error}; recover anew, without resume") from error
    if saved.checksum != _checksum(saved, tensors):
        raise FormatError(f"the checkpoint {path} is corrupt (checksum): recover anew, without resume")
    for field, old, new in _differences(saved.origin.model_dump(), origin.model_dump()):
        raise FormatError(
            f"the checkpoint {path} is of another recovery: {field} was {old!r} and is {new!r} now; "
            "ask for the same, or recover anew, without resume"
        )
    return saved, tensors


def _header(path: Path, text: str) -> Saved:
    """The header, once it is known to be of this version."""
    with suppress(ValueError, AttributeError):  # of no JSON object the validation tells more
        version = json.loads(text).get("schema_version")
        if version != SCHEMA:
            raise FormatError(
                f"{path} is a checkpoint of another version of whyprune (format {version!r}, this one reads "
                f"{SCHEMA}): go on with that version, or recover anew, without resume"
            )
    return Saved.model_validate_json(text)


def _checksum(saved: Saved, tensors: Tensors) -> int:
    value = zlib.crc32(saved.model_copy(update={"checksum": 0}).model_dump_json().encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        value = zlib.crc32(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode(), value)
        value = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, value)
    return value


def _differences(old: Any, new: Any, field: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _differences(old.get(key), new.get(key), f"{field}.{key}".lstrip("."))
    elif field.endswith(".norm") and isinstance(old, float) and isinstance(new, float):
        if not math.isclose(old, new, rel_tol=_NORM_TOLERANCE, abs_tol=_NORM_TOLERANCE):
            yield field, old, new
    elif old != new:
        yield field, old, new
