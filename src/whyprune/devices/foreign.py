"""Reads files that come from elsewhere, by hand or from another machine: bounded, and nothing in them is executed.

Every reader refuses what it does not know (links, pipes, duplicate keys, NaN, pickles, sizes past a limit) before
it takes memory for it, with a `FormatError` that names the file and what is wrong.
"""

import hashlib
import io
import json
import math
import os
import stat
import zipfile
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from whyprune.errors import FormatError

MAX_JSON_BYTES = 64 * 2**20
MAX_ARRAY_BYTES = 512 * 2**20
READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def shown(value: Any, limit: int = 60) -> str:
    """A value in a message: on one line, printable, and short."""
    text = repr(value)
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def read_plain(path: str | os.PathLike[str], limit: int = MAX_JSON_BYTES) -> bytes:
    """The bytes of an ordinary file.

    Args:
        path: the file; not a link, a folder, a pipe or a device.
        limit: the most bytes it may have.

    Raises:
        FormatError: it is missing, something else, or larger.
    """
    # Without O_NONBLOCK the opening of a pipe would wait for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        if Path(path).is_symlink():
            raise FormatError(f"{path} is a link: give the file itself")
        with open(os.open(path, flags), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise FormatError(f"{path} is no ordinary file: give the file itself")
            if about.st_size > limit:
                raise FormatError(f"{path} has {about.st_size:,} bytes, more than {limit:,}: it is not read")
            return file.read(limit)
    except (OSError, ValueError) as error:  # a null character in a name is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise FormatError(f"cannot read {path}: {reason}") from error


def parse_json(data: bytes, name: str) -> dict[str, Any]:
    """One JSON object, without duplicate names, NaN, infinite numbers or deep nesting.

    Args:
        data: its text, UTF-8.
        name: the file's name, for messages.

    Raises:
        FormatError: it is anything else.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise FormatError(f"{name}: the field {shown(key)} is there twice")
            found[key] = value
        return found

    def number(text: str) -> float:
        value = float(text)
        return value if math.isfinite(value) else refuse(text)

    def refuse(text: str) -> NoReturn:
        raise FormatError(f"{name}: {text} is no number that is read: every number must be finite")

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=once, parse_constant=refuse, parse_float=number)
    except RecursionError:
        raise FormatError(f"{name} is nested too deeply: it is not read") from None
    except ValueError as error:  # no UTF-8, no JSON, or an integer of thousands of digits
        raise FormatError(f"{name} is no JSON ({str(error).splitlines()[0]}): it is damaged") from error
    if not isinstance(value, dict):
        raise FormatError(f"{name} holds {shown(value)}: it must be one JSON object")
    return value


def read_arrays(data: bytes, name: str, limit: int = MAX_ARRAY_BYTES) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file: numbers only, all finite.

    Args:
        data: the file's bytes.
        name: its name, for messages.
        limit: the most bytes of all arrays together, unpacked.

    Raises:
        FormatError: it is damaged, holds anything but arrays of numbers, or unpacks to more.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            total = sum(entry.file_size for entry in entries)
            if total > limit:
                raise FormatError(f"{name} unpacks to {total:,} bytes, more than {limit:,}: it is not read")
            names = [entry.filename for entry in entries]
            if len(set(names)) < len(names) or any(not n.endswith(".npy") for n in names):
                raise FormatError(f"{name} holds {shown(names)}: an .npz file holds one .npy per array")
            arrays = {n.removesuffix(".npy"): _array(archive.read(n), f"{name}: {shown(n)}") for n in names}
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise FormatError(f"{name} is no whole .npz file ({error}): it is damaged") from error
    except zipfile.zlib.error as error:  # type: ignore[attr-defined]
        raise FormatError(f"{name} is no whole .npz file ({error}): it is damaged") from error
    return arrays


def _array(data: bytes, name: str) -> NDArray[Any]:
    """One .npy file; its header is held against its length before memory is taken for what it claims."""
    stream = io.BytesIO(data)
    reader = READERS.get(npy.read_magic(stream))
    if reader is None:
        raise FormatError(f"{name} is of another .npy version: write it with numpy.save")
    shape, fortran, dtype = reader(stream)
    if dtype.kind not in "biuf":
        raise FormatError(f"{name} is of type {dtype}: only numbers are read")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise FormatError(f"{name} claims the shape {shown(shape)} for {len(data) - stream.tell():,} bytes")
    array = np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran else "C")
    if not np.isfinite(array).all():
        raise FormatError(f"{name} holds NaN or infinite values: the device's results cannot be used")
    return array


def sha256(data: bytes) -> str:
    """The checksum of a file's bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
