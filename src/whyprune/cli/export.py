"""`whyprune export`: a saved result in a format other programs run."""

from pathlib import Path
from typing import Annotated

import typer

from whyprune.cli.options import FolderArgument, JsonOption, RecordedModelOption
from whyprune.cli.screen import Screen
from whyprune.workspace.folder import export_folder


def export(
    folder: FolderArgument,
    *,
    onnx: Annotated[  # noqa: ARG001
        bool, typer.Option("--onnx", help="As ONNX; so far the only format, and the default.")
    ] = True,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to; default: DIR/model.onnx.", show_default=False),
    ] = None,
    model: RecordedModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Writes the pruned network as one ONNX file, checked in ONNX Runtime against PyTorch."""
    screen = Screen(as_json=as_json)
    path, difference = export_folder(folder, output, model)
    screen.show(f"{path}: largest difference to PyTorch {difference:.1e}")
    screen.emit({"file": path, "max_abs_difference": difference})
