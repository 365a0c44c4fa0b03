"""Device profiles: what a device is, how it is imitated or predicted, and where its figures come from.

A profile is one JSON file. whyprune's own lie in `profiles/`; a user's folder, named by the environment variable
`WHYPRUNE_DEVICES`, adds to them and may replace them.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from whyprune.devices.base import DeviceKind
from whyprune.errors import FormatError, InputError
from whyprune.results import Record
from whyprune.structure.operation_costs import KINDS, OperationKind

FOLDER_VARIABLE = "WHYPRUNE_DEVICES"
BUILT_IN = Path(__file__).parent / "profiles"
MAX_BYTES = 1_000_000
NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"

RATED: tuple[OperationKind, ...] = ("winograd", "spatial", "pointwise", "grouped", "depthwise", "linear", "product")
"""Kinds of layers that compute; the others only move numbers."""

Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Citation(Record):
    """Where a figure comes from.

    `second_hand` marks a page that repeats a vendor's figures, and a figure written down from memory.
    """

    title: str = Field(min_length=1)
    what: str = Field(min_length=1, description="which figures were taken from it")
    url: str | None = None
    second_hand: bool = False


class ResourceLimits(Record):
    """What an emulated device may use of the machine that imitates it. `None` is no limit."""

    threads: int = Field(1, ge=1)
    cores: int | None = Field(None, ge=1, description="cores the process may run on")
    memory_bytes: int | None = Field(None, ge=1, description="what a process may use, its runtime included")
    isa: str | None = Field(None, description="the best instruction set, as oneDNN's ONEDNN_MAX_CPU_ISA names it")


class DeviceProperty(Record):
    """A published property of the device; it is shown, and bounds what a fit may believe."""

    name: str
    value: float = Field(gt=0, allow_inf_nan=False)
    unit: str


class ErrorFound(Record):
    """How far predictions were off where they could be compared, in percent of the measured latency."""

    compared_with: str
    median_percent: float = Field(ge=0, allow_inf_nan=False)
    p90_percent: float = Field(ge=0, allow_inf_nan=False)
    count: int = Field(ge=1)


class Rates(Record):
    """The parameters of a roofline (`roofline.py`), all for one sample at float32 shapes.

    Attributes:
        ms_per_gmac: time of 10^9 multiply-accumulates, by kind of layer (`structure/operation_costs.py`).
        ms_per_mbyte: time to move 10^6 bytes of activations through a layer that computes.
        ms_per_mbyte_elementwise: the same for a layer that only moves numbers, or treats each by itself.
        ms_per_mbyte_of_weights: the same for weights.
        ms_per_layer: what every layer costs besides, by its kind.
        ms_per_run: what every inference costs besides.
        channel_ramp: a layer of this many channels runs at half the rate of a very wide one.
        channel_step: channels are worked on in blocks of this many; a width costs as much as the next full block.
    """

    ms_per_gmac: dict[OperationKind, Rate]
    ms_per_mbyte: Rate
    ms_per_mbyte_elementwise: Rate
    ms_per_mbyte_of_weights: Rate
    ms_per_layer: dict[OperationKind, Rate]
    ms_per_run: Rate = 0.0
    channel_ramp: Rate = 0.0
    channel_step: int = Field(1, ge=1, le=1024)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for name, asked in (("ms_per_gmac", RATED), ("ms_per_layer", KINDS)):
            missing = [kind for kind in asked if kind not in getattr(self, name)]
            if missing:
                raise ValueError(f"{name} has no {', '.join(missing)}: give a number for each of {', '.join(asked)}")
        return self


class Roofline(Record):
    """The rates of a device with some number of threads, what they were fitted to, and the errors they show."""

    threads: int = Field(1, ge=1)
    rates: Rates
    fitted_to: str = ""
    errors: tuple[ErrorFound, ...] = ()


class Profile(Record):
    """A device by name.

    `runtime`, `threads` and `batch_size` are those of the figures for a predicted device, else the defaults.
    """

    schema_version: Literal[1] = 1
    name: str = Field(pattern=NAME)
    kind: DeviceKind
    title: str = Field(min_length=1)
    runtime: str = "ort"
    threads: int = Field(1, ge=1)
    batch_size: int = Field(1, ge=1)
    limits: ResourceLimits | None = None
    rooflines: tuple[Roofline, ...] = ()
    figures: tuple[DeviceProperty, ...] = ()
    sources: tuple[Citation, ...] = ()
    note: str = ""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.kind == "emulated") != (self.limits is not None):
            raise ValueError(f"an emulated device needs limits, others have none; kind is {self.kind!r}")
        if (self.kind == "predicted") != bool(self.rooflines):
            raise ValueError(f"a predicted device needs a roofline, others have none; kind is {self.kind!r}")
        if self.rooflines and self.threads not in (r.threads for r in self.rooflines):
            raise ValueError(f"threads is {self.threads}, which none of the rooflines is for")
        if self.kind == "predicted" and not self.sources:
            raise ValueError("a predicted device needs at least one source of its figures")
        return self

    def roofline(self, threads: int | None = None) -> Roofline:
        """The roofline for so many threads, by default for the profile's own.

        Raises:
            InputError: the profile says nothing about that many threads.
        """
        threads = self.threads if threads is None else threads
        found = next((r for r in self.rooflines if r.threads == threads), None)
        if found is None:
            known = " or ".join(f"{self.name}-{r.threads}t" for r in self.rooflines) or "nothing"
            raise InputError(f"device {self.name!r} is not predicted for {threads} threads: there is {known}")
        return found


def read_profile(path: Path) -> Profile:
    """Reads and checks one profile.

    Raises:
        FormatError: the file is missing, too large, no JSON, or does not fit the schema.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FormatError(f"{path} has more than {MAX_BYTES:,} bytes: that is no device profile")
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is no JSON: {str(error).splitlines()[0]}") from error
    try:
        profile = Profile.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the profile"
        raise FormatError(
            f"{path}: {place}: {first['msg']}; compare with `whyprune devices show pi4 --json`"
        ) from error
    if profile.name != path.stem:
        raise FormatError(f"{path} holds a profile named {profile.name!r}: a profile's file is named after it")
    return profile


def write_profile(profile: Profile, path: Path) -> None:
    """Writes a profile as JSON, whole or not at all."""
    from whyprune.atomic import atomic_file

    text = json.dumps(profile.model_dump(mode="json", exclude_defaults=True), indent=1)
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def profiles(folder: Path | None = None) -> dict[str, Profile]:
    """All profiles by name: whyprune's own, then those of `folder` or of the folder in `WHYPRUNE_DEVICES`.

    Raises:
        InputError: the user's folder does not exist.
        FormatError: a profile cannot be read.
    """
    return {profile.name: profile for place in _folders(folder) for profile in map(read_profile, place)}


def _folders(folder: Path | None) -> Iterator[list[Path]]:
    yield sorted(BUILT_IN.glob("*.json"))
    named = os.environ.get(FOLDER_VARIABLE) if folder is None else str(folder)
    if named:
        own = Path(named).expanduser()
        if not own.is_dir():
            raise InputError(f"no folder {own} for device profiles: make it, or unset {FOLDER_VARIABLE}")
        yield sorted(own.glob("*.json"))
