"""`whyprune report`: the report of a saved result, written again."""

from pathlib import Path
from typing import Annotated

import typer

from whyprune.cli.options import FolderArgument, JsonOption
from whyprune.cli.screen import Screen
from whyprune.workspace.folder import report_folder


def report(
    folder: FolderArgument,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to; default: DIR/report.html.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Writes report.html again from the other files in DIR; needs neither the network nor the data."""
    screen = Screen(as_json=as_json)
    path = report_folder(folder, output)
    screen.show(str(path))
    screen.emit({"file": path})
