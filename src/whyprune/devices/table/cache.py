"""Tables on disk: one file per device, runtime and machine, whole or not at all, and read with suspicion."""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from whyprune.atomic import atomic_file
from whyprune.devices.base import Measurement
from whyprune.devices.table.rows import Row
from whyprune.results import Record

LARGEST_BYTES = 64 * 2**20
OF_MACHINE = ("cpu", "isa", "architecture", "core_limit", "accelerator")
OF_ENVIRONMENT = re.compile(r"(ONEDNN|DNNL)_MAX_CPU_ISA|ATEN_CPU_CAPABILITY|MKL_ENABLE_INSTRUCTIONS|QEMU_CPU|ORT_\w+")
"""Variables that choose kernels; others, such as folders for temporary files, differ from run to run."""
Count = Annotated[int, Field(ge=1, le=2**24, strict=True)]
Offset = Annotated[int, Field(ge=0, le=2**16, strict=True)]
Rows = Mapping[Row, float]


class StoredRow(Record):
    """A row as it is stored, with its time."""

    operation: Literal["conv", "linear"]
    inputs: Count
    outputs: Count
    kernel: tuple[Count, Count]
    stride: tuple[Count, Count]
    padding: tuple[Offset, Offset]
    dilation: tuple[Count, Count]
    groups: Count
    size: tuple[Count, Count]
    batch: Count
    ms: Annotated[float, Field(gt=0, lt=1e9, allow_inf_nan=False)]


class StoredTable(Record):
    """A table as it is stored; `sha256` is that of the rows, in canonical JSON."""

    schema_version: Literal[1] = 1
    device: str
    about: dict[str, Any]
    rows: list[StoredRow]
    sha256: str


def about_of(measured: Measurement) -> dict[str, Any]:
    """What a table holds for: the device, its runtime and the machine, as a measurement there tells them."""
    machine = {key: measured.machine[key] for key in OF_MACHINE if measured.machine.get(key) is not None}
    environment = measured.machine.get("environment") or {}
    machine["environment"] = {k: v for k, v in sorted(environment.items()) if OF_ENVIRONMENT.fullmatch(k)}
    return {
        "device": measured.device,
        "runtime": getattr(measured, "runtime", None),
        "versions": dict(sorted(getattr(measured, "versions", {}).items())),
        "machine": machine,
    }


def cache_path(about: Mapping[str, Any], folder: Path | None = None) -> Path:
    """Where the table of a device lies: in `folder`, by default `whyprune/tables` of the user's cache (XDG)."""
    text = json.dumps(about, sort_keys=True, default=str)
    name = "".join(c if c.isalnum() or c in "-._" else "-" for c in str(about["device"]))[:64]
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return (folder or _cache_home() / "whyprune" / "tables") / f"{name}-{digest}.json"


def _cache_home() -> Path:
    stated = os.environ.get("XDG_CACHE_HOME", "")
    return Path(stated) if os.path.isabs(stated) else Path.home() / ".cache"


def save_rows(path: Path, about: Mapping[str, Any], rows: Rows) -> None:
    """Writes a table.

    Raises:
        InputError: the file cannot be written.
    """
    stored = [StoredRow(**asdict(row), ms=ms) for row, ms in sorted(rows.items())]
    plain = [row.model_dump(mode="json") for row in stored]
    table = StoredTable(device=str(about["device"]), about=dict(about), rows=stored, sha256=_checksum(plain))
    with atomic_file(path) as temporary:
        temporary.write_text(table.model_dump_json(indent=None), encoding="utf-8")


def load_rows(path: Path) -> tuple[dict[Row, float], str | None]:
    """The rows of a table, and why there are none if the file cannot be trusted; no file is an empty table."""
    if not path.exists():
        return {}, None
    try:
        if path.stat().st_size > LARGEST_BYTES:
            return {}, _ignored(path, f"it is larger than {LARGEST_BYTES:,} bytes")
        table = TypeAdapter(StoredTable).validate_json(path.read_bytes())
    except (OSError, ValidationError, ValueError, RecursionError) as error:
        return {}, _ignored(path, _reason(error))
    if _checksum([row.model_dump(mode="json") for row in table.rows]) != table.sha256:
        return {}, _ignored(path, "its checksum does not fit its rows")
    fields = [row.model_dump() for row in table.rows]
    rows = {Row(**{k: v for k, v in row.items() if k != "ms"}): row["ms"] for row in fields}
    if not all(math.isfinite(ms) for ms in rows.values()):
        return {}, _ignored(path, "a time is not finite")
    return rows, None


def _ignored(path: Path, reason: str) -> str:
    return f"the latency table {path.name} was ignored and is measured again: {reason}"


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{place}: {first['msg']}" if place else str(first["msg"])
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _checksum(rows: list[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
