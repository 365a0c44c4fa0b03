"""Devices by name: the one door to what runs, imitates or predicts a device."""

import os
from pathlib import Path
from typing import cast

from whyprune.devices.base import Device
from whyprune.devices.local import LocalDevice
from whyprune.devices.names import SSH, DeviceName, parse
from whyprune.devices.profile import Profile, ResourceLimits, profiles
from whyprune.devices.roofline import PredictedDevice
from whyprune.devices.ssh import RemoteDevice
from whyprune.errors import InputError

HONOUR_ISA = ("torch", "compile", "openvino")
"""Runtimes whose kernels come from oneDNN, which keeps to an older instruction set when asked."""


def device(name: str, *, folder: Path | None = None) -> Device:
    """The device of that name.

    Args:
        name: `PLACE[-RUNTIME][-Nt][-bN]`: `local-ort-1t`, `laptop-openvino`, `pi4`; or `ssh://user@host[#Nt-bN]`.
        folder: a folder with further profiles; default: the one that `WHYPRUNE_DEVICES` names.

    Raises:
        InputError: there is no such device, or it needs more cores than there are; near matches are in the message.
        FormatError: a profile cannot be read.
    """
    if name.startswith(SSH):
        return cast(Device, RemoteDevice(name))  # it sends files, so it takes modules alone
    known = profiles(folder)
    asked = parse(name, known)
    profile = known[asked.place]
    return _predicted(profile, asked) if profile.kind == "predicted" else _here(profile, asked)


def _predicted(profile: Profile, asked: DeviceName) -> Device:
    if asked.runtime not in (None, profile.runtime):
        raise InputError(
            f"device {str(asked)!r}: the figures of {profile.name} are for {profile.runtime}, not {asked.runtime}; "
            "leave the runtime out, or measure the board"
        )
    profile.roofline(asked.threads)
    return PredictedDevice(profile, asked.threads, asked.batch_size or profile.batch_size, str(asked))


def _here(profile: Profile, asked: DeviceName) -> Device:
    """This machine, as it is or within a profile's limits."""
    runtime, limits = asked.runtime or profile.runtime, profile.limits
    batch_size = asked.batch_size or profile.batch_size
    if limits is None:
        threads, within = asked.threads or profile.threads, None
    else:
        within = _cores(limits, asked)
        threads = asked.threads or min(limits.threads, len(within))
    shown = DeviceName(profile.name, runtime, threads, None if batch_size == 1 else batch_size)
    return LocalDevice(
        runtime=runtime,
        threads=threads,
        batch_size=batch_size,
        cores=within,
        memory_bytes=None if limits is None else limits.memory_bytes,
        environment={} if limits is None else _environment(limits, runtime),
        name=str(shown),
        kind=profile.kind,
    )


def _cores(limits: ResourceLimits, asked: DeviceName) -> tuple[int, ...]:
    """The cores that the device may use: this process's own, up to the limit."""
    affinity = getattr(os, "sched_getaffinity", None)
    if affinity is None:
        raise InputError(f"device {str(asked)!r}: this system cannot hold a process to cores; take local instead")
    usable = tuple(sorted(affinity(0)))[: limits.cores or limits.threads]
    if asked.threads is not None and asked.threads > min(limits.threads, len(usable)):
        raise InputError(
            f"device {str(asked)!r}: {asked.place} has {limits.threads} threads and this process may use "
            f"{len(usable)} of its cores: ask for at most {min(limits.threads, len(usable))} threads"
        )
    return usable


def _environment(limits: ResourceLimits, runtime: str) -> dict[str, str]:
    """Variables that hold the runtime to an instruction set; none where it would not keep to it."""
    if limits.isa is None or runtime not in HONOUR_ISA:
        return {}
    aten = "avx2" if limits.isa == "AVX2" else "default"
    return {"ONEDNN_MAX_CPU_ISA": limits.isa, "ATEN_CPU_CAPABILITY": aten}
