"""`whyprune devices`: the devices there are. One file per command; add yours with one line."""

import typer

from whyprune.cli.devices.bundle import bundle
from whyprune.cli.devices.calibrate import calibrate
from whyprune.cli.devices.import_ import import_results
from whyprune.cli.devices.list import list_devices
from whyprune.cli.devices.show import show
from whyprune.cli.devices.table import table

devices = typer.Typer(no_args_is_help=True, help="Devices: measured here, emulated here, or predicted.")
devices.command("list")(list_devices)
devices.command("show")(show)
devices.command("bundle")(bundle)
devices.command("import")(import_results)
devices.command("calibrate")(calibrate)
devices.command("table")(table)
