"""`whyprune devices calibrate`: a predicted profile of a device, from layers measured on it."""

import re
from pathlib import Path
from typing import Annotated

import typer

from whyprune.cli.devices.options import ProfilesOption
from whyprune.cli.options import JsonOption, QuietOption, SeedOption
from whyprune.cli.screen import Screen
from whyprune.devices.calibration import calibrate_device
from whyprune.devices.profile import NAME, write_profile
from whyprune.devices.registry import device as device_named
from whyprune.errors import InputError


def calibrate(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the profile is to be called.")],
    *,
    device: Annotated[
        str, typer.Option("--device", metavar="DEVICE", help="What to measure: see `whyprune devices list`.")
    ] = "local-ort-1t",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to; default: NAME.json.", show_default=False),
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(metavar="N", min=10, help="Measure only so many of the layers.", show_default=False),
    ] = None,
    folder: ProfilesOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measures small layers on a device, fits a profile to them, and shows its error on layers held out.

    The profile predicts networks on that device. Use it by its name with --profiles, or put it into the folder that
    WHYPRUNE_DEVICES names.
    """
    screen = Screen(quiet=quiet, as_json=as_json)
    path = Path(f"{name}.json") if out is None else out
    if not re.fullmatch(NAME, name):
        raise InputError(f"NAME is {name!r}: give lower-case letters and digits with single dashes between them")
    if path.stem != name or path.suffix != ".json":
        raise InputError(f"--out is {path}: a profile's file is named after it, give a folder's {name}.json")
    if not path.parent.is_dir():
        raise InputError(f"--out is {path}: there is no folder {path.parent}")
    measured = device_named(device, folder=folder)
    found = calibrate_device(measured, layers=layers, seed=seed, progress=screen.progress)
    profile = found.profile(name, measured)
    write_profile(profile, path)
    screen.show(
        f"{path}: predicts layers that it was not fitted to with an error of {found.error.median_percent:.1f}% in the "
        f"median, {found.error.p90_percent:.1f}% at p90 ({found.error.count} layers)"
    )
    screen.emit({"file": path, "profile": profile.model_dump(mode="json"), "held_out": found.held_out})
