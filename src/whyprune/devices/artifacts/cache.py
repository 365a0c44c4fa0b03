"""Artifacts by content: the same network is not written twice."""

import hashlib
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from whyprune.data.batches import Batch
from whyprune.devices.artifacts.formats import Artifact, write_artifact
from whyprune.models.weights import fingerprint

PLAIN = (bool, int, float, str, bytes, type(None))


class ArtifactCache:
    """Keeps what it wrote in a folder of its own, which goes with it; the oldest make room for new ones.

    Args:
        limit_bytes: how much it keeps.
    """

    def __init__(self, limit_bytes: int = 2 * 2**30) -> None:
        self.limit_bytes = limit_bytes
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._kept: OrderedDict[str, Artifact] = OrderedDict()
        self._written = 0

    def get(self, name: str, model: nn.Module, example: Batch) -> tuple[Artifact, bool]:
        """The artifact of a network in a format, and whether it was there before.

        Raises:
            WhypruneError: as `write_artifact`.
        """
        key = _key(name, model, example)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key], True
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="whyprune-artifacts-")
        self._written += 1
        self._kept[key] = write_artifact(name, model, example, Path(self._folder.name, f"{self._written}.artifact"))
        self._make_room()
        return self._kept[key], False

    def forget(self, name: str, model: nn.Module, example: Batch) -> None:
        """Drops an artifact that turned out wrong: two networks that differ in their code alone look the same."""
        self._drop(_key(name, model, example))

    def _make_room(self) -> None:
        while len(self._kept) > 1 and sum(a.size_bytes for a in self._kept.values()) > self.limit_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: str) -> None:
        artifact = self._kept.pop(key, None)
        for file in () if artifact is None else artifact.files:
            file.unlink(missing_ok=True)


SHARED = ArtifactCache()
"""Of this process; its folder goes when the process ends."""


def _key(name: str, model: nn.Module, example: Batch) -> str:
    """Of the network's classes, settings and weights, and of the inputs' shapes and types."""
    digest = hashlib.sha256(f"{name}\0{fingerprint(model)}\0{model!r}\0".encode())
    for where, module in model.named_modules():
        plain = {k: v for k, v in vars(module).items() if _is_plain(v) and k != "training"}
        digest.update(f"{where}\0{type(module).__module__}.{type(module).__qualname__}\0{plain!r}\0".encode())
    for buffer in model.buffers():
        digest.update(buffer.detach().cpu().contiguous().numpy().tobytes())
    for value in (*example.args, *sorted(example.kwargs.items())):
        digest.update(f"{_described(value)}\0".encode())
    return digest.hexdigest()


def _is_plain(value: Any) -> bool:
    """Whether its text is the same in every process: that of an object may be its address."""
    return all(map(_is_plain, value)) if isinstance(value, tuple) else isinstance(value, PLAIN)


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {value.dtype}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_described, value))})"
    return repr(value)
