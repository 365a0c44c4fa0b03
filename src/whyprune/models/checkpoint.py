"""Weights as files hold them: safetensors, PyTorch's own files, and both in shards. No object is ever unpickled.

PyTorch's files are read by `torch.load(weights_only=True)`, which makes tensors and plain containers and nothing else.
"""

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from whyprune.errors import FormatError

SAFETENSORS = ".safetensors"
PREFERRED = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "module")
"""Names under which training code keeps the weights, the usual first; others (`ema`, `best`) come after them."""
DEEPEST = 3
MOST_EXPANSION = 8
"""Times the size of a file that its entries may take up unpacked: tensors hardly compress."""
MOST_INDEX_BYTES = 64 * 2**20
INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
POINTER = b"version https://git-lfs"
"""How a file starts that Git LFS left in the place of a large one."""
Weights = dict[str, Tensor]


def weights_in(path: Path) -> dict[str, Weights]:
    """All sets of named tensors in a file by where they lie in it, the likeliest first; "" is the file itself.

    Raises:
        FormatError: there is no such file, or it is damaged, hostile, or holds objects besides tensors.
    """
    if not path.is_file():
        raise FormatError(f"there is no weights file {path}: {_instead(path)}")
    if path.name.endswith(".index.json"):
        return {"": _sharded(path)}
    with path.open("rb") as file:
        start = file.read(len(POINTER))
    if path.suffix.lower() == SAFETENSORS and start != POINTER:
        return {"": _safetensors(path)}
    if start[:2] == b"PK" or start[:1] == b"\x80" or tar_like(path):
        return dict(_sets(_torch_file(path), path))
    if said := _no_weights(start):
        raise FormatError(f"{path} {said}")
    return {"": _safetensors(path)}


def _no_weights(start: bytes) -> str:
    """What a file is that is of neither kind, and what to do; "" where it may be safetensors under another name."""
    if not start:
        return "is empty: save or download it again"
    if start == POINTER:
        return "is a pointer of Git LFS, not the weights themselves: fetch them with git lfs pull"
    if start[8:9] == b"{":  # the header of safetensors, after its length
        return ""
    return (
        "is a file neither of torch.save nor of safetensors: give the weights as torch.save(model.state_dict(), "
        "'weights.pt') or save_file make them"
    )


def tar_like(path: Path) -> bool:
    """Whether a file lies in a tar archive, as PyTorch wrote them before version 0.2, or is named like one."""
    return path.suffix.lower() == ".tar"


def _instead(path: Path) -> str:
    if not path.is_dir():
        return "check the path"
    names = (*INDICES, "model.safetensors", "pytorch_model.bin")
    found = next((name for name in names if (path / name).is_file()), None)
    return f"it is a folder, in which {found} lies: name that" if found else "it is a folder: name the file in it"


def _safetensors(path: Path) -> Weights:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise FormatError(f"{path} is no whole safetensors file ({error}): save or download it again") from error


def _sharded(path: Path) -> Weights:
    """The tensors of all files that an index names, as the Hugging Face hub lays out large networks."""
    try:
        if path.stat().st_size > MOST_INDEX_BYTES:
            raise ValueError("it is too large")
        places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(places.values()))
        if any(not isinstance(name, str) or Path(name).name != name for name in names):
            raise ValueError("it names files in other folders")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"{path} is no index of weights files ({error}): download it again") from error
    found: Weights = {}
    for name in names:
        shard = path.with_name(name)
        if shard.name.endswith(".index.json"):
            raise FormatError(f"{path} names {name}, another index: download it again")
        found |= next(iter(weights_in(shard).values()))
    if missing := sorted(set(places) - set(found)):
        raise FormatError(f"{path}: the files it names lack {missing[0]} ({len(missing)} in all): download them again")
    return {name: found[name] for name in places}


def _torch_file(path: Path) -> Any:
    """What `torch.save` wrote, tensors and containers only."""
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FormatError(_pickled(path, str(error))) from error
    except Exception as error:  # a hostile or damaged file can raise anything
        text = str(error)
        if "TorchScript" in text:
            raise FormatError(
                f"{path} is a TorchScript file: give the weights alone, torch.save(model.state_dict(), 'weights.pt')"
            ) from error
        reason = text.strip().splitlines()[0][:200] if text.strip() else type(error).__name__
        raise FormatError(f"{path} is no whole weights file ({reason}): save or download it again") from error


def _check_archive(path: Path) -> None:
    """Refuses archives that are broken, or would take up far more unpacked than they do on disk."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise FormatError(f"{path} is no whole weights file ({error}): save or download it again") from error
    if size > MOST_EXPANSION * path.stat().st_size:
        raise FormatError(f"{path} would unpack to {size:,} bytes, from {path.stat().st_size:,}: it holds no weights")


def _pickled(path: Path, error: str) -> str:
    """The message about a file that holds objects: nothing of it was run."""
    kind = re.search(r"GLOBAL ([\w.]+)|[Uu]nsupported (?:class|global|type)\W+(?!GLOBAL)([\w.]+)", error)
    what = f" ({kind[1] or kind[2]})" if kind else ""
    return (
        f"{path} holds Python objects besides tensors{what}, such as a whole pickled model, which can run code when "
        "loaded: it was not. Where you trust it, save its weights alone, once: "
        "torch.save(torch.load(path, weights_only=False).state_dict(), 'weights.pt') for a whole model, "
        "torch.save(torch.load(path, weights_only=False)['state_dict'], 'weights.pt') for a training checkpoint"
    )


def _sets(held: Any, path: Path) -> Iterator[tuple[str, Weights]]:
    found = sorted(_named(held), key=lambda each: (each[0].count("."), _rank(each[0])))
    if not found:
        raise FormatError(
            f"{path} holds no weights by name but a {type(held).__name__}: "
            "save them with torch.save(model.state_dict(), 'weights.pt')"
        )
    yield from found


def _rank(place: str) -> tuple[int, str]:
    last = place.rpartition(".")[2]
    return (PREFERRED.index(last) if last in PREFERRED else len(PREFERRED), place)


def _named(held: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, Weights]]:
    """Mappings from names to tensors, however wrapped; what lies beside the tensors of one is left out."""
    if not isinstance(held, Mapping) or depth > DEEPEST:
        return
    tensors = {name: value for name, value in held.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if tensors:
        yield place, {name: tensor.detach() for name, tensor in tensors.items()}
    for name, value in held.items():
        if isinstance(name, str):
            yield from _named(value, f"{place}.{name}" if place else name, depth + 1)
