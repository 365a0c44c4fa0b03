"""Weights from safetensors files, and fingerprints that tell networks apart. Nothing is unpickled."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from whyprune.errors import FormatError

PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar")
PREFIX = "module."
# Batch norm counts its batches; the count plays no part in evaluation, and many files leave it out.
COUNTER = "num_batches_tracked"
NAMED = 3


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Loads a safetensors file into a model, in place; on an error the model is as before.

    A leading `module.` (left by data-parallel training) is stripped. A missing `num_batches_tracked` keeps
    the model's own, and so does a missing parameter that shares its memory with one in the file.

    Raises:
        FormatError: the file is missing, no safetensors file, or damaged; keys or shapes do not fit the
            model; a weight is NaN or infinite, or its type cannot be that of the model.
    """
    path = Path(path)
    weights = _without_prefix(_read(path), model)
    own = model.state_dict()
    kept = _may_be_missing(own, weights)
    missing, unexpected = sorted(set(own) - set(weights) - kept), sorted(set(weights) - set(own))
    if missing or unexpected:
        raise FormatError(
            f"{path} does not fit {type(model).__name__}: {len(missing)} keys missing{_first(missing)}, "
            f"{len(unexpected)} unexpected{_first(unexpected)}: name the model it was saved from"
        )
    for name, tensor in sorted(weights.items()):
        _check_tensor(path, name, tensor, own[name])
    model.load_state_dict(weights, strict=False)


def fingerprint(model: nn.Module) -> str:
    """SHA-256 (hex) of the state dict: names, types, shapes and values, in the order of the names."""
    return _digest(model, values=True)


def architecture_fingerprint(model: nn.Module) -> str:
    """SHA-256 (hex) of the state dict's names, types and shapes; the values play no part."""
    return _digest(model, values=False)


def _digest(model: nn.Module, *, values: bool) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        if values:
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FormatError(f"there is no weights file {path}: check the path")
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise FormatError(
            f"{path} may be a pickle, which can run code when loaded: convert it once, where you trust it: "
            "`weights = torch.load(path, weights_only=True)`, take its state dict, then "
            "`safetensors.torch.save_file(weights, 'weights.safetensors')`"
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise FormatError(f"{path} is no whole safetensors file ({error}): save or download it again") from error


def _without_prefix(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    own = model.state_dict()
    if any(name in own for name in weights) or not all(name.startswith(PREFIX) for name in weights):
        return weights
    return {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()}


def _may_be_missing(own: Mapping[str, Tensor], weights: Iterable[str]) -> set[str]:
    loaded = {_memory(own[name]) for name in weights if name in own and own[name].numel()}
    return {name for name, tensor in own.items() if name.endswith(COUNTER) or _memory(tensor) in loaded}


def _memory(tensor: Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride()


def _first(names: list[str]) -> str:
    return f" ({', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''})" if names else ""


def _check_tensor(path: Path, name: str, tensor: Tensor, own: Tensor) -> None:
    if tensor.shape != own.shape:
        raise FormatError(
            f"{path}: {name} has shape {tuple(tensor.shape)}, the model's is {tuple(own.shape)}: "
            "name the model it was saved from (its number of classes, its widths)"
        )
    if tensor.is_floating_point() != own.is_floating_point():
        raise FormatError(
            f"{path}: {name} has type {tensor.dtype}, the model's is {own.dtype}: "
            "quantised weights cannot be loaded; save them as float"
        )
    if not tensor.is_floating_point() and not _holds(own, tensor):
        raise FormatError(f"{path}: {name} has type {tensor.dtype}, whose values the model's {own.dtype} cannot hold")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor.to(own.dtype)).all()):
        raise FormatError(f"{path}: {name} holds NaN or infinite values: the network was saved broken")


def _holds(own: Tensor, tensor: Tensor) -> bool:
    """Whether a tensor's values, which are no floats, stay the same in the type of the model's own."""
    if tensor.is_complex() or own.is_complex():
        return tensor.dtype == own.dtype
    return torch.equal(tensor.to(own.dtype).to(tensor.dtype), tensor)
