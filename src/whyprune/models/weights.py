"""Weights from files into networks, and fingerprints that tell networks apart. No object is unpickled."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from whyprune.errors import FormatError
from whyprune.models.checkpoint import Weights, weights_in
from whyprune.models.inner import inner

PREFIXES = ("", "module.", "_orig_mod.", "model.")
"""What wrappers and trainers put before every name, the usual first: data-parallel, compiled, Lightning."""
# Batch norm counts its batches; the count plays no part in evaluation, and many files leave it out.
COUNTER = "num_batches_tracked"
NAMED = 3


def load_weights(model: nn.Module, path: str | Path) -> str:
    """Loads weights into a model, in place; on an error the model is as before.

    The file is one of safetensors, of `torch.save` (`.pt`, `.pth`, `.bin`, `.ckpt`; read with `weights_only=True`), or
    the index of several (`*.index.json`). In a training checkpoint the weights are looked for under the usual names
    (`state_dict`, `model`, ...). A prefix that all names share (`module.`, `_orig_mod.`, `model.`) is stripped. A
    missing `num_batches_tracked` keeps the model's own, and so does a missing parameter that shares its memory with one
    in the file.

    Returns:
        Where in the file the weights were, and what lies beside them, in a sentence; "" where there is nothing to say.

    Raises:
        FormatError: the file is missing or damaged, or holds objects besides tensors; keys or shapes do not fit the
            model; a weight is NaN or infinite, or its type cannot be that of the model.
    """
    path, model = Path(path), inner(model)
    own = model.state_dict()
    sets = weights_in(path)
    candidates = [
        (place, prefix, _stripped(weights, prefix))
        for place, weights in sets.items()
        for prefix in _prefixes(weights, own)
    ]
    fitting = [each for each in candidates if not _misfit(own, each[2])]
    place, prefix, weights = fitting[0] if fitting else max(candidates, key=lambda each: _likeness(own, each[2]))
    kept = _may_be_missing(own, weights)
    missing, unexpected = sorted(set(own) - set(weights) - kept), sorted(set(weights) - set(own))
    if missing or unexpected:
        inside = f" (under {place!r})" if place else ""
        raise FormatError(
            f"{path}{inside} does not fit {type(model).__name__}: {len(missing)} keys missing{_first(missing)}, "
            f"{len(unexpected)} unexpected{_first(unexpected)}: name the model it was saved from"
        )
    for name, tensor in sorted(weights.items()):
        _check_tensor(path, name, tensor, own[name])
    model.load_state_dict(weights, strict=False)
    return _said(path, place, prefix, [other[:2] for other in fitting[1:]], len(sets[place]) - len(weights))


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


def _prefixes(weights: Weights, own: Mapping[str, Tensor]) -> list[str]:
    """What may stand before the model's own names in a file: nothing, the usual, or whatever stands before one."""
    key = max((name for name in own if not name.endswith(COUNTER)), key=len, default="")
    found = sorted({name[: -len(key)] for name in weights if key and name.endswith(f".{key}")})
    known = [prefix for prefix in PREFIXES if not prefix or any(name.startswith(prefix) for name in weights)]
    return list(dict.fromkeys([*known, *(prefix for prefix in found if prefix)]))


def _stripped(weights: Weights, prefix: str) -> Weights:
    """The weights under a prefix, without it; what lies beside them is no part of this network."""
    return {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}


def _misfit(own: Mapping[str, Tensor], weights: Weights) -> bool:
    names = set(own) - _may_be_missing(own, weights)
    return not names <= set(weights) <= set(own) or not weights


def _likeness(own: Mapping[str, Tensor], weights: Weights) -> float:
    """How much of both sets of names is the same."""
    return len(set(own) & set(weights)) / max(len(set(own) | set(weights)), 1)


def _said(path: Path, place: str, prefix: str, others: list[tuple[str, str]], beside: int) -> str:
    if not (place or others or beside):
        return ""
    parts = [f"weights: taken from {place!r} of {path.name}" if place else f"weights: of {path.name}"]
    if prefix:
        parts.append(f"names under {prefix!r}")
    if beside:
        parts.append(f"{beside} tensors beside them left out")
    if others:
        parts.append(
            f"{', '.join(repr('.'.join(filter(None, each)).rstrip('.')) for each in others)} would fit as well"
        )
    return "; ".join(parts)


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
