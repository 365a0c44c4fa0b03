"""Names of devices: `PLACE[-RUNTIME][-Nt][-bN]`, such as `local-ort-1t`, `laptop-openvino-2t-b16` or `pi4`."""

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass

from whyprune.errors import InputError

RUNTIMES = (
    "torch",
    "compile",
    "ort",
    "openvino",
    "executorch",
    "litert",
    "ncnn",
    "ort-cuda",
    "ort-tensorrt",
    "cuda",
)
SSH = "ssh://"
MAX_COUNT = 4096
_BATCH = re.compile(r"(?P<rest>.+)-b(?P<count>[1-9][0-9]{0,5})")
_THREADS = re.compile(r"(?P<rest>.+)-(?P<count>[1-9][0-9]{0,5})t")
_SHAPE = "PLACE[-RUNTIME][-Nt][-bN], such as local-ort-1t or laptop-openvino-2t-b16"


@dataclass(frozen=True)
class DeviceName:
    """A device's name taken apart; `None` is what the place itself says."""

    place: str
    runtime: str | None = None
    threads: int | None = None
    batch_size: int | None = None

    def __str__(self) -> str:
        parts = [
            self.place,
            self.runtime,
            None if self.threads is None else f"{self.threads}t",
            None if self.batch_size is None else f"b{self.batch_size}",
        ]
        return "-".join(part for part in parts if part is not None)


def parse(name: str, places: Collection[str]) -> DeviceName:
    """Takes a device's name apart.

    Args:
        name: as a user wrote it.
        places: the places there are; they may have dashes.

    Raises:
        InputError: no such place or runtime, or a count out of range; near matches and the list are in the message.
    """
    rest, threads, batch_size = counts(name, name)
    if rest in places:
        return DeviceName(rest, None, threads, batch_size)
    for runtime in sorted(RUNTIMES, key=len, reverse=True):
        place = rest.removesuffix(f"-{runtime}")
        if place != rest and place in places:
            return DeviceName(place, runtime, threads, batch_size)
    raise InputError(_unknown(name, rest, places))


def counts(text: str, name: str) -> tuple[str, int | None, int | None]:
    """What is left of a text without `-Nt-bN` at its end, the threads, and the batch size.

    Raises:
        InputError: a count out of range; the message is about the device `name`.
    """
    rest, batch_size = _counted(text, _BATCH, name)
    rest, threads = _counted(rest, _THREADS, name)
    return rest, threads, batch_size


def _counted(text: str, pattern: re.Pattern[str], name: str) -> tuple[str, int | None]:
    found = pattern.fullmatch(text)
    if found is None:
        return text, None
    count = int(found["count"])
    if count > MAX_COUNT:
        raise InputError(f"device {name!r} asks for {count}: give at most {MAX_COUNT} threads or samples")
    return found["rest"], count


def _unknown(name: str, rest: str, places: Collection[str]) -> str:
    place = next((p for p in sorted(places, key=len, reverse=True) if rest.startswith(f"{p}-")), None)
    if place is not None:
        wrong = rest.removeprefix(f"{place}-")
        near = _near(wrong, RUNTIMES)
        return f"device {name!r}: {wrong!r} is no runtime{near}; the runtimes are {', '.join(RUNTIMES)}"
    near = _near(rest, [*places, *(f"{p}-{r}" for p in places for r in RUNTIMES)])
    return (
        f"no device {name!r}{near}; the places are {', '.join(sorted(places))}, a name is {_SHAPE}, or {SSH}USER@HOST"
    )


def _near(word: str, known: Collection[str]) -> str:
    found = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(repr(f) for f in found)}?)" if found else ""
