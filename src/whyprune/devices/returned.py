"""What a bundle brought back: read, checked against the bundle, and turned into a `Measurement`."""

import gzip
import io
import os
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from whyprune.devices.base import Measurement
from whyprune.devices.bundle import EXPECTED, SUMS
from whyprune.devices.foreign import MAX_ARRAY_BYTES, MAX_JSON_BYTES, read_arrays, read_plain, sha256, shown
from whyprune.devices.latency import latency_summary
from whyprune.devices.record import (
    OUTPUTS,
    RECORD,
    SPEC,
    DeviceRecord,
    Spec,
    check_fits,
    checked_record,
    checked_spec,
)
from whyprune.errors import FormatError, VerificationError

MAX_ARCHIVE_BYTES, MAX_MEMBERS = 4 * 2**30, 1000
TOLERANCE = 1e-3
LIMITS = {
    RECORD: MAX_JSON_BYTES,
    SPEC: MAX_JSON_BYTES,
    SUMS: 2**20,
    OUTPUTS: MAX_ARRAY_BYTES,
    EXPECTED: MAX_ARRAY_BYTES,
}
Arrays = Mapping[str, NDArray[Any]]


def read_results(
    path: str | os.PathLike[str], bundle: str | os.PathLike[str] | None = None, *, device: str | None = None
) -> Measurement:
    """Reads what a bundle brought back.

    Args:
        path: `record.json` with `outputs.npz` beside it, or the folder or archive that holds them.
        bundle: the bundle as it was written, a folder or archive; default: the bundle's files came back too.
        device: the name to report; default: the CPU that the record names.

    Raises:
        FormatError: a file is missing, damaged, hostile, was changed, or is not of this bundle.
        VerificationError: the device's outputs are not those of PyTorch.
    """
    place = _open(Path(path))
    home = place if bundle is None else _open(Path(bundle))
    data = home.read(SPEC)
    spec = checked_spec(data, f"{home.name}/{SPEC}")
    sizes = home.check_sums()
    name = f"{place.name}/{RECORD}"
    record = checked_record(place.read(RECORD), name)
    check_fits(record, spec, sha256(data), name)
    outputs = place.read(OUTPUTS)
    if sha256(outputs) != record.outputs.sha256:
        raise FormatError(f"{place.name}/{OUTPUTS} was changed, or is of another run: bring both files again")
    found = read_arrays(outputs, f"{place.name}/{OUTPUTS}")
    expected = read_arrays(home.read(EXPECTED), f"{home.name}/{EXPECTED}")
    differences = compare(found, expected, name)
    artifacts = {n: sizes[file.path] for n, file in spec.networks.items() if file.path in sizes}
    return measurement_of(record, spec, artifacts, differences, device)


def compare(found: Arrays, expected: Arrays, name: str) -> dict[str, float]:
    """The largest absolute difference of each network's outputs to PyTorch's.

    Raises:
        VerificationError: they differ by more than float arithmetic explains, or in shape.
    """
    if {n: a.shape for n, a in found.items()} != {n: a.shape for n, a in expected.items()}:
        raise VerificationError(f"{name}: the device gives outputs {shown(sorted(found))}, other than PyTorch's")
    worst: dict[str, float] = {}
    for output, answer in expected.items():
        network = output.rpartition("/")[0]
        difference = float(np.abs(found[output].astype(np.float64) - answer).max(initial=0.0))
        largest = float(np.abs(answer).max(initial=0.0))
        if not difference <= TOLERANCE * max(1.0, largest):
            raise VerificationError(
                f"{name}: network {network!r} gives outputs there that differ from PyTorch's by {difference:.3g}, "
                f"more than {TOLERANCE:g} of outputs up to {largest:.3g}: do not use this device for it"
            )
        worst[network] = max(worst.get(network, 0.0), difference)
    return worst


@dataclass(frozen=True)
class Folder:
    """Files in a folder, by name; links are not followed."""

    path: Path

    @property
    def name(self) -> str:
        """For messages."""
        return str(self.path)

    def read(self, name: str) -> bytes:
        """One file's bytes."""
        return read_plain(self.path / name, LIMITS[name])

    def check_sums(self) -> dict[str, int]:
        """Holds every file of a bundle against its checksum; gives their sizes in bytes."""
        sizes: dict[str, int] = {}
        for file, expected in _sums(self.read(SUMS), f"{self.name}/{SUMS}").items():
            data = read_plain(self.path / file, MAX_ARCHIVE_BYTES)
            if sha256(data) != expected:
                raise _changed(f"{self.name}/{file}")
            sizes[file] = len(data)
        return sizes


@dataclass(frozen=True)
class Archive:
    """Files of a `.tar.gz`, read in memory: nothing is unpacked to the disk."""

    path: Path
    held: Mapping[str, bytes]
    sums: Mapping[str, tuple[str, int]]

    @property
    def name(self) -> str:
        """For messages."""
        return str(self.path)

    def read(self, name: str) -> bytes:
        """One file's bytes."""
        try:
            return self.held[name]
        except KeyError:
            raise FormatError(f"{self.path} holds no {name}: give the archive of a bundle") from None

    def check_sums(self) -> dict[str, int]:
        """Holds every file of a bundle against its checksum; gives their sizes in bytes."""
        listed = _sums(self.read(SUMS), f"{self.name}/{SUMS}")
        for file, expected in listed.items():
            if self.sums.get(file, ("", 0))[0] != expected:
                raise _changed(f"{self.name}/{file}")
        return {file: self.sums[file][1] for file in listed}


def _changed(file: str) -> FormatError:
    return FormatError(f"{file} is missing or was changed after the bundle was written: write the bundle again")


def _sums(data: bytes, name: str) -> dict[str, str]:
    lines = data.decode("ascii", "replace").splitlines()
    matches = [re.fullmatch(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._-]{0,127})", line) for line in lines]
    found = {m[2]: m[1] for m in matches if m}
    if len(found) != len(lines) or not found.keys() >= {SPEC, EXPECTED}:
        raise FormatError(f"{name} is no list of checksums of a bundle: write the bundle again")
    return found


def _open(path: Path) -> Folder | Archive:
    if path.name == RECORD and not path.is_dir():
        return Folder(path.parent)
    if path.is_dir():
        return Folder(path)
    if path.name.endswith((".tar.gz", ".tgz")):
        return _read_archive(path)
    raise FormatError(f"{path} is no {RECORD}, no folder and no .tar.gz of a bundle: give one of them")


class _Bounded(io.RawIOBase):
    """A compressed stream that refuses to grow without end, in all or in one piece."""

    def __init__(self, raw: gzip.GzipFile, name: str) -> None:
        self.raw, self.file = raw, name

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > MAX_ARRAY_BYTES:
            raise FormatError(f"{self.file} has an entry of {size:,} bytes: it is not read")
        self._check(self.raw.tell() + size)
        return self.raw.read(size)

    def seek(self, position: int, whence: int = 0) -> int:
        if whence:
            raise FormatError(f"{self.file} is no whole archive")
        self._check(position)
        return self.raw.seek(position)

    def tell(self) -> int:
        return self.raw.tell()

    def _check(self, position: int) -> None:
        if position > MAX_ARCHIVE_BYTES:
            raise FormatError(f"{self.file} unpacks to more than {MAX_ARCHIVE_BYTES:,} bytes: it is not read")


def _read_archive(path: Path) -> Archive:
    if path.is_symlink() or not path.is_file():
        raise FormatError(f"{path} is missing, a link or no ordinary file: give the archive itself")
    held: dict[str, bytes] = {}
    sums: dict[str, tuple[str, int]] = {}
    try:
        with gzip.open(path) as raw, tarfile.open(fileobj=cast(Any, _Bounded(raw, str(path))), mode="r:") as tar:
            for count, member in enumerate(tar):
                name = member.name.rpartition("/")[2]
                if member.isdir() and count == 0:
                    continue
                _check_member(path, member, name, count, sums)
                data = cast(Any, tar.extractfile(member)).read()
                sums[name] = sha256(data), len(data)
                if name in LIMITS:
                    held[name] = data
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise FormatError(f"{path} is no whole .tar.gz ({error}): it is damaged") from error
    return Archive(path, held, sums)


def _check_member(path: Path, member: tarfile.TarInfo, name: str, count: int, sums: Mapping[str, Any]) -> None:
    """One level of ordinary files, below one folder at most."""
    fine = re.fullmatch(r"(\./)?([A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9.][A-Za-z0-9._-]{0,127}", member.name)
    if not fine or ".." in member.name.split("/") or not member.isfile() or member.issparse():
        raise FormatError(f"{path} holds {shown(member.name)}, which is no file of a bundle: it is not read")
    if count > MAX_MEMBERS or name in sums:
        raise FormatError(f"{path} holds {shown(member.name)} twice, or more than {MAX_MEMBERS} files: it is not read")
    if member.size > LIMITS.get(name, MAX_ARRAY_BYTES):
        raise FormatError(f"{path} holds {shown(member.name)} of {member.size:,} bytes: it is not read")


def measurement_of(
    record: DeviceRecord, spec: Spec, sizes: Mapping[str, int], differences: Mapping[str, float], device: str | None
) -> Measurement:
    """The record's numbers, as every device gives them."""
    samples = {name: np.asarray(times, dtype=np.float64) for name, times in record.samples_ms.items()}
    versions = record.machine.get("versions")
    return Measurement(
        device=device or f"{record.machine.get('cpu') or 'unknown'}, {record.runtime} {record.threads}t",
        latency={name: latency_summary(s, spec.batch_size, record.threads) for name, s in samples.items()},
        samples_ms=samples,
        machine=record.machine,
        kind="emulated" if _emulated(record.machine) else "measured",
        runtime=record.runtime,
        versions={str(k): str(v) for k, v in versions.items()} if isinstance(versions, dict) else {},
        size_bytes=dict(sizes),
        peak_memory_bytes=record.peak_memory_bytes,
        baseline_memory_bytes=record.baseline_memory_bytes,
        cold_start_ms=record.cold_start_ms,
        energy_mj=record.energy_mj,
        energy_meter=record.energy_meter,
        max_abs_difference=dict(differences),
    )


def _emulated(machine: Mapping[str, Any]) -> bool:
    """Whether the processor was qemu's: its model is then in the environment."""
    environment = machine.get("environment")
    return isinstance(environment, dict) and "QEMU_CPU" in environment
