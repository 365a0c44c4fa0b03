"""Where the files of a bundle lie: a folder, or an archive that is read in memory, never unpacked."""

import gzip
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from whyprune.devices.bundle import EXPECTED, SUMS
from whyprune.devices.foreign import MAX_ARRAY_BYTES, MAX_JSON_BYTES, read_plain, sha256, shown
from whyprune.devices.record import OUTPUTS, RECORD, SPEC
from whyprune.errors import FormatError

MAX_ARCHIVE_BYTES, MAX_MEMBERS = 4 * 2**30, 1000
LIMITS = {
    RECORD: MAX_JSON_BYTES,
    SPEC: MAX_JSON_BYTES,
    SUMS: 2**20,
    OUTPUTS: MAX_ARRAY_BYTES,
    EXPECTED: MAX_ARRAY_BYTES,
}


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
    *lines, last = data.decode("ascii", "replace").split("\n")
    matches = [re.fullmatch(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._-]{0,127})", line) for line in lines]
    found = {m[2]: m[1] for m in matches if m}
    if last or len(found) != len(lines) or not found.keys() >= {SPEC, EXPECTED}:
        raise FormatError(f"{name} is no list of checksums of a bundle: write the bundle again")
    return found


def open_place(path: Path) -> Folder | Archive:
    """The files that a path stands for: a record's folder, a folder, or an archive.

    Raises:
        FormatError: it is none of them, damaged, or hostile.
    """
    if path.name == RECORD and not path.is_dir():
        return Folder(path.parent)
    if path.is_dir():
        return Folder(path)
    if path.name.endswith((".tar.gz", ".tgz")):
        return _read_archive(path)
    raise FormatError(f"{path} is no {RECORD}, no folder and no .tar.gz of a bundle: give one of them")


class _Bounded:
    """A compressed stream that refuses to grow without end, in all or in one piece."""

    def __init__(self, raw: gzip.GzipFile, name: str) -> None:
        self.raw, self.file = raw, name

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes."""
        if size < 0 or size > MAX_ARRAY_BYTES:
            raise FormatError(f"{self.file} has an entry of {size:,} bytes: it is not read")
        self._check(self.raw.tell() + size)
        return self.raw.read(size)

    def seek(self, position: int, whence: int = 0) -> int:
        """Goes to a position, counted from the start."""
        if whence:
            raise FormatError(f"{self.file} is no whole archive")
        self._check(position)
        return self.raw.seek(position)

    def tell(self) -> int:
        """The position."""
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
        with (
            gzip.open(path) as raw,
            tarfile.open(fileobj=(file := cast(Any, _Bounded(raw, str(path)))), mode="r:") as tar,
        ):
            for count, member in enumerate(tar):
                name = member.name.rpartition("/")[2]
                if member.isdir() and count == 0:
                    continue
                _check_member(path, member, name, count, sums)
                data = cast(Any, tar.extractfile(member)).read()
                sums[name] = sha256(data), len(data)
                if name in LIMITS:
                    held[name] = data
            # To its end, where the compressed stream has its own checksum.
            while file.read(2**20):
                pass
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
