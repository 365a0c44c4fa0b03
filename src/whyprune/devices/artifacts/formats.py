"""What formats there are, and the door that writes them: whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from whyprune.data.batches import Batch
from whyprune.devices.artifacts import executorch, litert, ncnn, onnx, openvino, torch_export
from whyprune.devices.evaluation import evaluation_mode
from whyprune.devices.quiet import cause, silence
from whyprune.errors import InputError, MissingDependencyError, TraceError, WhypruneError


@dataclass(frozen=True)
class Format:
    """A kind of artifact.

    Attributes:
        suffixes: of its files; the first is the one that a runtime is given.
        write: (model in evaluation mode, example, path of the first file) writes them all.
        modules: what must be importable.
        extra: of whyprune, that brings them.
    """

    suffixes: tuple[str, ...]
    write: Callable[[nn.Module, Batch, Path], None]
    modules: tuple[str, ...] = ()
    extra: str = ""


FORMATS: Mapping[str, Format] = {
    "onnx": Format((".onnx",), onnx.write, ("onnx", "onnxscript"), "onnx"),
    "torch-export": Format((".pt2",), torch_export.write),
    "openvino": Format((".xml", ".bin"), openvino.write, ("openvino", "onnx", "onnxscript"), "openvino,onnx"),
    "executorch": Format((".pte",), executorch.write, ("executorch",), "executorch"),
    "litert": Format((".tflite",), litert.write, ("litert_torch",), "litert"),
    "ncnn": Format((".param", ".bin"), ncnn.write, ("ncnn", "pnnx"), "ncnn"),
}
"""By name. `onnx-int8` is not among them: it takes images to calibrate on (`quantize_onnx`)."""


@dataclass(frozen=True)
class Artifact:
    """A network in a runtime's format.

    Attributes:
        format: which.
        path: the file that a runtime is given; others of the same stem lie beside it.
        files: all of them.
    """

    format: str
    path: Path
    files: tuple[Path, ...]

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.stat().st_size for file in self.files)


def write_artifact(name: str, model: nn.Module, example: Batch, path: str | os.PathLike[str]) -> Artifact:
    """Writes a network for a runtime. Whether it computes the same is for a device to check, which runs it.

    Args:
        name: the format.
        model: the network; it gets its modes back.
        example: inputs of the batch size that it will run at; values that are not tensors become constants.
        path: where the files go; the suffix is the format's.

    Raises:
        InputError: an unknown format, or a path that cannot be written.
        MissingDependencyError: the format's extra is not installed.
        TraceError: the network cannot be written in this format.
    """
    if name not in FORMATS:
        raise InputError(f"format is {name!r}: give one of {', '.join(FORMATS)}")
    form, target = FORMATS[name], Path(path)
    missing = [module for module in form.modules if find_spec(module) is None]
    if missing:
        needs = ", ".join(missing)
        raise MissingDependencyError(f"the format {name!r} needs {needs}: pip install 'whyprune[{form.extra}]'")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.stem}.", dir=target.parent) as folder:
            first = Path(folder, f"{target.stem}{form.suffixes[0]}")
            _write(name, form, model, example, first)
            files = tuple(target.with_name(target.stem + suffix) for suffix in form.suffixes)
            for file in reversed(files):  # the one that names the others comes last
                shutil.move(Path(folder, file.name), file)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot write {target}: {reason}; give a path in a folder you can write to") from error
    return Artifact(name, files[0], files)


def _write(name: str, form: Format, model: nn.Module, example: Batch, path: Path) -> None:
    try:
        with evaluation_mode([model]), silence(), torch.no_grad():
            form.write(model, example, path)
    except (WhypruneError, OSError):
        raise
    except Exception as error:
        raise TraceError(f"{type(model).__name__} cannot be written as {name}: {cause(error)}") from error
    for suffix in form.suffixes:
        if not path.with_suffix(suffix).is_file():
            raise TraceError(f"{type(model).__name__} cannot be written as {name}: no {suffix} file was written")
