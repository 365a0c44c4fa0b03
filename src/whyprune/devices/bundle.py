"""A bundle: all that a device needs to measure networks, as a folder or one archive, and what comes back from it.

    NAME.onnx     every network, with its weights
    inputs.npz    the inputs, arrays "0", "1", ...
    expected.npz  what PyTorch answers, arrays "NAME/0", "NAME/1", ...
    spec.json     what is to be measured
    runner.py     measures it: needs Python 3.9, numpy and onnxruntime
    README.txt    how to run it by hand
    SHA256SUMS    the checksum of every file above, as `sha256sum -c` reads it

The runner adds record.json and outputs.npz.
"""

import gzip
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from whyprune.data.batches import Batch
from whyprune.data.outputs import tensors_of
from whyprune.devices.artifacts.onnx import check_onnx
from whyprune.devices.base import Model
from whyprune.devices.evaluation import call, device_of, evaluating
from whyprune.devices.foreign import sha256
from whyprune.devices.onnx_file import export_onnx
from whyprune.devices.record import SPEC, Spec, new_spec
from whyprune.errors import InputError

INPUTS, EXPECTED, RUNNER, README, SUMS = "inputs.npz", "expected.npz", "runner.py", "README.txt", "SHA256SUMS"
ARCHIVE = (".tar.gz", ".tgz")
HOW = """On the device, in this folder, with Python 3.9 or newer:  python3 -m pip install numpy onnxruntime
Measure (nothing else should be running):  python3 runner.py
Take record.json and outputs.npz home:  whyprune devices import record.json --bundle THIS_BUNDLE
"""


@dataclass(frozen=True)
class MeasurementRequest:
    """What a bundle asks a device to measure, and how.

    Attributes:
        threads: of the runtime.
        batch_size: samples per call.
        cores: the only cores to run on; None for any.
        memory_bytes: limit of the process; None for none.
        min_warmup: untimed calls, at least.
        repeats: rounds, at most.
        seconds: no further round after this time, but for the first three.
        each_alone: measure cold start and peak memory, each network in a fresh process.
    """

    threads: int = 1
    batch_size: int = 1
    cores: tuple[int, ...] | None = None
    memory_bytes: int | None = None
    min_warmup: int = 5
    repeats: int = 200
    seconds: float = 6.0
    each_alone: bool = True


def write_bundle(
    networks: Mapping[str, Model | Path],
    inputs: Batch,
    path: str | os.PathLike[str],
    request: MeasurementRequest | None = None,
) -> Path:
    """Writes a bundle, whole or not at all.

    Args:
        networks: modules, or paths of ONNX files, whose outputs have nothing to be compared with, by name; a name is
            of letters, digits, '.', '_' and '-', 64 at most.
        inputs: at least `request.batch_size` samples.
        path: a new folder, or a file ending in `.tar.gz`; it must not exist.
        request: what is to be measured.

    Returns:
        The path.

    Raises:
        InputError: the path exists or cannot be written, a name or a setting cannot be used, too few inputs.
        MissingDependencyError, TraceError, VerificationError: as `export_onnx`.
    """
    target = Path(path)
    if target.exists() or target.is_symlink():
        raise InputError(f"{target} exists: name another place for the bundle")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
            folder = Path(temporary, "bundle")
            folder.mkdir()
            fill(folder, networks, inputs, request or MeasurementRequest())
            built = folder
            if target.name.endswith(ARCHIVE):
                built = Path(temporary, "archive")
                _pack(folder, built, target.name.removesuffix(".gz").removesuffix(".tgz").removesuffix(".tar"))
            os.replace(built, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot write {target}: {reason}; give a path in a folder you can write to") from error
    return target


def fill(
    folder: Path,
    networks: Mapping[str, Model | Path],
    inputs: Batch,
    request: MeasurementRequest,
    export: Callable[[nn.Module, Batch, Path], object] = export_onnx,
) -> Spec:
    """Writes a bundle's files into an empty folder; the arguments are those of `write_bundle`.

    `export` writes one network as ONNX.
    """
    if not networks:
        raise InputError("no network to measure: give a dict such as {'dense': model, 'pruned': pruned}")
    if len(inputs) < request.batch_size:
        raise InputError(f"{len(inputs)} inputs for a batch of {request.batch_size}: give at least as many inputs")
    batch = inputs[slice(0, request.batch_size)]
    files = {name: f"{name}.onnx" for name in networks}
    unknown = dict.fromkeys([*files.values(), INPUTS], "0" * 64)
    _spec(request, files, unknown)  # before the work: it refuses what cannot be asked
    _check_names(files)
    for name, network in networks.items():
        if isinstance(network, nn.Module):
            export(network, batch, folder / files[name])
        elif isinstance(network, Path):
            check_onnx(network)
            shutil.copyfile(network, folder / files[name])
        else:
            raise InputError(f"network {name!r} is a {type(network).__name__}: give a module, or an ONNX file's path")
    np.savez(folder / INPUTS, **{str(i): t.cpu().numpy() for i, t in enumerate(batch.tensors())})  # type: ignore[arg-type]
    modules = {name: network for name, network in networks.items() if isinstance(network, nn.Module)}
    np.savez(folder / EXPECTED, **answers(modules, batch))  # type: ignore[arg-type]
    (folder / RUNNER).write_bytes(resources.files("whyprune.devices").joinpath(RUNNER).read_bytes())
    (folder / README).write_text(HOW, encoding="utf-8")
    sums = {path.name: sha256(path.read_bytes()) for path in folder.iterdir()}
    spec = _spec(request, files, sums)
    data = spec.model_dump_json(indent=1).encode()
    (folder / SPEC).write_bytes(data)
    sums[SPEC] = sha256(data)
    lines = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))
    (folder / SUMS).write_text(lines, encoding="ascii")
    return spec


def _spec(request: MeasurementRequest, files: Mapping[str, str], sums: Mapping[str, str]) -> Spec:
    return new_spec(
        runtime="ort",
        threads=request.threads,
        batch_size=request.batch_size,
        cores=None if request.cores is None else list(request.cores),
        memory_bytes=request.memory_bytes,
        networks={name: {"path": file, "sha256": sums[file]} for name, file in files.items()},
        inputs={"path": INPUTS, "sha256": sums[INPUTS]},
        min_warmup=request.min_warmup,
        repeats=request.repeats,
        seconds=request.seconds,
        each_alone=request.each_alone,
    )


def answers(networks: Mapping[str, nn.Module], batch: Batch) -> dict[str, NDArray[Any]]:
    """What PyTorch gives, as arrays `NAME/0`, `NAME/1`, ..."""
    with evaluating(networks.values()):
        return {
            f"{name}/{i}": tensor.cpu().numpy()
            for name, network in networks.items()
            for i, tensor in enumerate(tensors_of(call(network, batch.to(device_of(network)), f"network {name!r}")))
        }


def _check_names(files: Mapping[str, str]) -> None:
    """Names become file names, also on devices that do not tell `A` from `a`."""
    lower = [f.lower() for f in files.values()]
    if len(set(lower)) < len(lower):
        raise InputError(f"the networks' names {', '.join(files)} differ in case only: give others")


def _pack(folder: Path, archive: Path, top: str) -> None:
    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        """No owner and no time: the same bundle is the same file."""
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mtime = 0
        member.mode = 0o755 if member.isdir() else 0o644
        return member

    with (
        open(archive, "wb") as raw,
        gzip.GzipFile("", "wb", 1, raw, mtime=0) as file,
        tarfile.open(fileobj=file, mode="w") as tar,
    ):
        for path in sorted(folder.iterdir()):
            tar.add(path, f"{top}/{path.name}", filter=plain)
