"""Devices by name: the one door to what runs, imitates or predicts a device."""

from pathlib import Path

from whyprune.devices.base import Device
from whyprune.devices.latency import TorchDevice
from whyprune.devices.names import SSH, DeviceName, parse
from whyprune.devices.profile import Profile, profiles
from whyprune.devices.roofline import Predicted
from whyprune.devices.ssh import Remote
from whyprune.errors import InputError


def device(name: str, *, folder: Path | None = None) -> Device:
    """The device of that name.

    Args:
        name: `PLACE[-RUNTIME][-Nt][-bN]`: `local-ort-1t`, `laptop-openvino`, `pi4`; or `ssh://user@host`.
        folder: a folder with further profiles; default: the one that `WHYPRUNE_DEVICES` names.

    Raises:
        InputError: there is no such device; near matches and the list are in the message.
        FormatError: a profile cannot be read.
    """
    if name.startswith(SSH):
        return Remote(name)
    known = profiles(folder)
    asked = parse(name, known)
    profile = known[asked.place]
    if profile.kind == "predicted":
        return _predicted(profile, asked)
    return _here(profile, asked.runtime or profile.runtime, asked.threads, asked.batch_size, str(asked))


def _predicted(profile: Profile, asked: DeviceName) -> Device:
    if asked.runtime not in (None, profile.runtime):
        raise InputError(
            f"device {str(asked)!r}: the figures of {profile.name} are for {profile.runtime}, not {asked.runtime}; "
            "leave the runtime out, or measure the board"
        )
    profile.roofline(asked.threads)
    return Predicted(profile, asked.threads, asked.batch_size or profile.batch_size, str(asked))


def _here(profile: Profile, runtime: str, threads: int | None, batch_size: int | None, name: str) -> Device:
    if runtime != "torch" or profile.kind != "measured":
        raise InputError(f"device {name!r}: runtime {runtime!r} is not in this version yet; take local-torch")
    return TorchDevice(threads=threads or profile.threads, batch_size=batch_size or profile.batch_size, name=name)
