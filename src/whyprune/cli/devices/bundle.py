"""`whyprune devices bundle`: what a device needs to measure networks, to be carried there by hand."""

from pathlib import Path
from typing import Annotated

import typer

from whyprune.cli.options import ClassesOption, InputShapeOption, JsonOption, RecordedModelOption, WeightsOption
from whyprune.cli.screen import Screen
from whyprune.cli.texts import sizes
from whyprune.devices import MeasurementRequest
from whyprune.workspace.bundling import bundle_models

RUN = "Measurement"


def bundle(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Folders that `whyprune prune --out` wrote, and at most one network as `prune` takes it.",
            show_default=False,
        ),
    ],
    *,
    out: Annotated[
        Path, typer.Option(metavar="PATH", help="A new folder, or a file ending in .tar.gz.", show_default=False)
    ],
    weights: WeightsOption = None,
    num_classes: ClassesOption = None,
    input_shape: InputShapeOption = None,
    model: RecordedModelOption = None,
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="Threads.", rich_help_panel=RUN)] = 1,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Images per call.", rich_help_panel=RUN)] = 1,
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="Rounds, at most.", rich_help_panel=RUN)] = 200,
    seconds: Annotated[float, typer.Option(metavar="X", help="No new round after.", rich_help_panel=RUN)] = 6.0,
    as_json: JsonOption = False,
) -> None:
    """Writes a bundle: networks as ONNX, inputs, and a runner that needs only Python, NumPy and ONNX Runtime.

    Example: whyprune devices bundle resnet56 --weights W.safetensors pruned-resnet56 --out bundle.tar.gz
    """
    screen = Screen(as_json=as_json)
    path = bundle_models(
        models,
        out,
        weights=weights,
        num_classes=num_classes,
        input_shape=sizes(input_shape),
        model=model,
        request=MeasurementRequest(threads=threads, batch_size=batch_size, repeats=repeats, seconds=seconds),
    )
    screen.show(f"{path}: take it to the device, run python3 runner.py there, and bring record.json and outputs.npz")
    screen.emit({"bundle": path})
