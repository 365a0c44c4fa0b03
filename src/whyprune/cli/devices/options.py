"""Options that several `whyprune devices` commands share."""

from pathlib import Path
from typing import Annotated

import typer

from whyprune.devices.profile import FOLDER_VARIABLE

ProfilesOption = Annotated[
    Path | None,
    typer.Option(
        "--profiles",
        metavar="DIR",
        help=f"A folder with your own profiles, NAME.json each; default: the one in {FOLDER_VARIABLE}.",
        show_default=False,
    ),
]
