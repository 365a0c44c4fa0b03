"""`whyprune devices list`: every device, and whether its numbers are measured, emulated or predicted."""

from rich.table import Table
from rich.text import Text

from whyprune.cli.devices.options import ProfilesOption
from whyprune.cli.options import JsonOption
from whyprune.cli.screen import Screen
from whyprune.devices.names import RUNTIMES
from whyprune.devices.profile import profiles


def list_devices(*, folder: ProfilesOption = None, as_json: JsonOption = False) -> None:
    """Lists the devices, and says whether their numbers are measured, emulated or predicted."""
    screen = Screen(as_json=as_json)
    known = profiles(folder)
    table = Table(box=None, pad_edge=False)
    for column in ("device", "kind", "runtime", "threads", "what it is"):
        table.add_column(column, overflow="fold")
    for profile in known.values():
        table.add_row(profile.name, profile.kind, profile.runtime, str(profile.threads), Text(profile.title))
    screen.show(
        table, "", f"Add a runtime, threads and a batch: local-openvino-2t-b16. Runtimes: {', '.join(RUNTIMES)}."
    )
    shown = ("name", "kind", "runtime", "threads", "batch_size", "title")
    screen.emit({"devices": [{k: getattr(p, k) for k in shown} for p in known.values()], "runtimes": list(RUNTIMES)})
