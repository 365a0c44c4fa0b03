"""`whyprune devices show`: one device, its limits or rates, their sources, and the errors found."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from whyprune.cli.devices.options import ProfilesOption
from whyprune.cli.options import JsonOption
from whyprune.cli.screen import Screen
from whyprune.devices.address import Address
from whyprune.devices.names import SSH, parse
from whyprune.devices.profile import Profile, Rates, profiles
from whyprune.errors import InputError


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A device: see `whyprune devices list`.")],
    *,
    folder: ProfilesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Shows a device: its limits or rates, where they come from, and how far they are off."""
    screen = Screen(as_json=as_json)
    if name.startswith(SSH):
        raise InputError(
            f"{Address.parse(name).name} has no profile to show: it is measured. "
            f"`whyprune devices calibrate NAME --device {name}` makes one"
        )
    known = profiles(folder)
    profile = known[parse(name, known).place]
    screen.show(_table(profile))
    screen.emit(profile.model_dump(mode="json"))


def _table(profile: Profile) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("device", Text(f"{profile.name}: {profile.title}"))
    table.add_row("kind", profile.kind)
    table.add_row("runtime", f"{profile.runtime}, {profile.threads} threads, batch {profile.batch_size}")
    if profile.limits is not None:
        table.add_row("limits", Text(", ".join(f"{k} {v}" for k, v in profile.limits if v is not None)))
    for roofline in profile.rooflines:
        table.add_row("predicted for", Text(f"{roofline.threads} threads, fitted to {roofline.fitted_to}"))
        for what, rate in _rates(roofline.rates):
            table.add_row(f"  {what}", rate)
        for found in roofline.errors:
            table.add_row(
                "  error",
                Text(
                    f"median {found.median_percent:.0f}%, p90 {found.p90_percent:.0f}% "
                    f"({found.count} comparisons with {found.compared_with})"
                ),
            )
    for figure in profile.figures:
        table.add_row(figure.name, Text(f"{figure.value:g} {figure.unit}"))
    for source in profile.sources:
        mark = " (second-hand)" if source.second_hand else ""
        where = f", {source.url}" if source.url else ""
        table.add_row("source", Text(f"{source.what}: {source.title}{where}{mark}"))
    if profile.note:
        table.add_row("note", Text(profile.note))
    return table


def _rates(rates: Rates) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = [
        (name, f"{1000 / value:.3g} GMAC/s") for name, value in rates.ms_per_gmac.items() if value > 0
    ]
    if rates.ms_per_mbyte > 0:
        rows.append(("memory", f"{1 / rates.ms_per_mbyte:.3g} GB/s"))
    if rates.ms_per_mbyte_of_weights > 0:
        rows.append(("weights", f"{1 / rates.ms_per_mbyte_of_weights:.3g} GB/s"))
    rows += [
        ("per layer", f"{max(rates.ms_per_layer.values()):.3g} ms"),
        ("per inference", f"{rates.ms_per_run:.3g} ms"),
    ]
    return [*rows, ("channel step", str(rates.channel_step))]
