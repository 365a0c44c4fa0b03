"""What goes to a device (`Spec`) and what comes back (`DeviceRecord`), checked before a word of it is believed.

A checksum finds damage and careless editing, not forgery: whoever runs a bundle could write any record.
"""

import json
import os
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, ValidationError

from whyprune.devices.foreign import parse_json, read_plain, sha256, shown
from whyprune.devices.runner import checksum
from whyprune.errors import FormatError, InputError, WhypruneError
from whyprune.results import Record

SCHEMA_VERSION = 1
SPEC, RECORD, OUTPUTS = "spec.json", "record.json", "outputs.npz"
MAX_NETWORKS, MAX_SAMPLES, MAX_DEPTH, MAX_ENTRIES = 256, 1_000_000, 6, 2000


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it holds characters that cannot be printed")
    return text


def _about(value: dict[str, Any]) -> dict[str, Any]:
    """Facts about a machine are shown to people: few, short and printable."""
    left = MAX_ENTRIES

    def visit(item: Any, depth: int) -> None:
        nonlocal left
        left -= 1
        if left < 0 or depth > MAX_DEPTH:
            raise ValueError(f"it has more than {MAX_ENTRIES} entries, or is nested deeper than {MAX_DEPTH}")
        if isinstance(item, str) and (len(item) > 2000 or not item.isprintable()):
            raise ValueError(f"{shown(item)} is too long or cannot be printed")
        inner = (*item, *item.values()) if isinstance(item, dict) else item if isinstance(item, list) else ()
        for each in inner:
            visit(each, depth + 1)

    visit(value, 0)
    return value


FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Words = Annotated[str, Field(max_length=256), AfterValidator(_printable)]
Count = Annotated[int, Field(ge=1, le=2**20)]
Milliseconds = Annotated[float, Field(gt=0, lt=1e9, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=0, lt=2**50)]
About = Annotated[dict[str, Any], AfterValidator(_about)]
T = TypeVar("T")
PerNetwork = Annotated[dict[Name, T], Field(max_length=MAX_NETWORKS)]


class Foreign(Record):
    """A record from elsewhere: frozen, no unknown fields, and no value is turned into another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class StoredFile(Foreign):
    """A file in the same folder, by name, with its checksum."""

    path: FileName
    sha256: Sha256


class Outputs(Foreign):
    """The outputs' file, whose name is fixed."""

    path: Literal["outputs.npz"]
    sha256: Sha256


class Spec(Foreign):
    """What a runner is to do. Field names are those of `spec.json`; see `runner.py`."""

    schema_version: Literal[1]
    runtime: Name
    threads: Count
    batch_size: Count
    cores: Annotated[list[Annotated[int, Field(ge=0, lt=2**20)]], Field(min_length=1, max_length=4096)] | None
    memory_bytes: Annotated[int, Field(ge=2**20, lt=2**50)] | None
    networks: Annotated[dict[Name, StoredFile], Field(min_length=1, max_length=MAX_NETWORKS)]
    inputs: StoredFile
    min_warmup: Annotated[int, Field(ge=0, le=MAX_SAMPLES)]
    repeats: Annotated[int, Field(ge=1, le=MAX_SAMPLES)]
    seconds: Annotated[float, Field(gt=0, lt=1e7, allow_inf_nan=False)]
    each_alone: bool


class DeviceRecord(Foreign):
    """What a runner measured; units are in the field names. A missing entry was not measured."""

    schema_version: Literal[1]
    spec_sha256: Sha256
    runtime: Name
    threads: Count
    batch_size: Count
    samples_ms: Annotated[
        dict[Name, Annotated[list[Milliseconds], Field(min_length=1, max_length=MAX_SAMPLES)]],
        Field(min_length=1, max_length=MAX_NETWORKS),
    ]
    preempted_rounds: PerNetwork[
        Annotated[list[Annotated[int, Field(ge=0, lt=MAX_SAMPLES)]], Field(max_length=MAX_SAMPLES)]
    ]
    warmup_calls: PerNetwork[Annotated[int, Field(ge=0, lt=2**40)]]
    cold_start_ms: PerNetwork[Milliseconds]
    peak_memory_bytes: PerNetwork[Bytes]
    baseline_memory_bytes: Bytes | None
    memory_limit: Words | None
    energy_mj: PerNetwork[Annotated[float, Field(ge=0, lt=1e12, allow_inf_nan=False)]]
    energy_meter: Words | None
    outputs: Outputs
    machine: About
    sha256: Sha256


def read_spec(path: str | os.PathLike[str]) -> tuple[Spec, str]:
    """Reads a `spec.json`.

    Returns:
        The spec, and the checksum of its file.

    Raises:
        FormatError: it is missing, damaged, or no spec.
    """
    data = read_plain(path)
    return checked_spec(data, str(path)), sha256(data)


def checked_spec(data: bytes, name: str) -> Spec:
    """The spec in a file's bytes; `name` is the file's, for messages."""
    return _validated(Spec, parse_json(data, name), name, "spec")


def new_spec(**fields: Any) -> Spec:
    """A spec of these fields.

    Raises:
        InputError: a field cannot be used.
    """
    return _validated(Spec, {"schema_version": SCHEMA_VERSION, **fields}, "what is asked", "spec", InputError)


def checked_record(data: bytes, name: str) -> DeviceRecord:
    """The record in a file's bytes, its own checksum right.

    Args:
        data: the file's bytes.
        name: the file's name, for messages.

    Raises:
        FormatError: it is damaged, was changed, or is no record.
    """
    content = parse_json(data, name)
    record = _validated(DeviceRecord, content, name, "record")
    found = checksum(content)
    if found != record.sha256 or data != written(content):
        raise FormatError(
            f"{name} was changed after it was written: its checksum is {found[:12]}..., it states "
            f"{record.sha256[:12]}...: bring the file from the device again, as it is"
        )
    return record


def check_fits(record: DeviceRecord, spec: Spec, spec_sha256: str, name: str) -> None:
    """Holds a record against the spec it answers.

    Raises:
        FormatError: it answers another spec, or does not say what the spec asks for.
    """
    asked, got = set(spec.networks), set(record.samples_ms)
    lengths = {len(samples) for samples in record.samples_ms.values()}
    problems = {
        f"spec_sha256 is {record.spec_sha256[:12]}..., the bundle's is {spec_sha256[:12]}..., so it is of "
        "another bundle": record.spec_sha256 != spec_sha256,
        f"runtime is {shown(record.runtime)}, asked was {spec.runtime!r}": record.runtime != spec.runtime,
        f"threads is {record.threads}, asked were {spec.threads}": record.threads != spec.threads,
        f"batch_size is {record.batch_size}, asked was {spec.batch_size}": record.batch_size != spec.batch_size,
        f"samples_ms has networks {shown(sorted(got))}, asked were {shown(sorted(asked))}": asked != got,
        f"samples_ms has {sorted(lengths)} rounds, networks of one run have as many each": len(lengths) != 1,
        f"samples_ms has {max(lengths)} rounds, asked were at most {spec.repeats}": max(lengths) > spec.repeats,
    }
    for field in ("preempted_rounds", "warmup_calls", "cold_start_ms", "peak_memory_bytes", "energy_mj"):
        unknown = sorted(set(getattr(record, field)) - asked)
        problems[f"{field} has {shown(unknown)}, which the bundle does not have"] = bool(unknown)
    for problem, there in problems.items():
        if there:
            raise FormatError(f"{name} does not fit the bundle: {problem}")


def written(content: dict[str, Any]) -> bytes:
    """The one way the runner writes a record: every other spacing is a change."""
    return f"{json.dumps(content, indent=1, allow_nan=False)}\n".encode("ascii")


M = TypeVar("M", bound=Foreign)


def _validated(
    kind: type[M], content: dict[str, Any], name: str, what: str, wrong: type[WhypruneError] = FormatError
) -> M:
    version = content.get("schema_version")
    if isinstance(version, int) and version != SCHEMA_VERSION:
        raise FormatError(
            f"{name}: schema_version is {shown(version)}, this whyprune reads {SCHEMA_VERSION}: use the same "
            "version of whyprune for the bundle and for its results"
        )
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = shown(".".join(str(part) for part in first["loc"]), 120)[1:-1] or "the file"
        missing = first["type"] == "missing"
        value = "missing" if missing else f"{shown(first['input'])}: {first['msg']}"
        raise wrong(f"{name} is no {what}: {place} is {value}") from error
