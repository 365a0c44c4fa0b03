"""`whyprune devices table`: what every layer of a network takes on a device, width by width."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from whyprune.cli.options import ClassesOption, JsonOption, ModelArgument, QuietOption
from whyprune.cli.screen import Screen
from whyprune.cli.texts import sizes
from whyprune.devices.registry import device as named
from whyprune.devices.table.plot import plot_curves
from whyprune.devices.table.steps import LatencyCurve, step_of, tabulate
from whyprune.structure.trace import trace
from whyprune.workspace.setup import network_and_example


def table(
    model: ModelArgument,
    *,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="A device: see `whyprune devices list`.", show_default=False)
    ],
    num_classes: ClassesOption = None,
    image_size: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Rows and columns of the images.", show_default=False)
    ] = None,
    input_shape: Annotated[
        str | None,
        typer.Option(metavar="C,H,W", help="Shape of one image, if the network has none.", show_default=False),
    ] = None,
    multiple: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Measure widths at multiples of N; default: 4, 8 or more, by the size of the layer.",
            show_default=False,
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw time over width (.png, .svg or .pdf).", show_default=False),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measures every layer of a network at every width it may be pruned to; what was measured before is kept."""
    screen = Screen(quiet, as_json)
    where = named(device)
    network, example = network_and_example(
        model, num_classes=num_classes, input_shape=sizes(input_shape), image_size=image_size
    )
    found, curves, measured = tabulate(
        trace(network, example), where, multiple=multiple, progress=screen.progress and not as_json
    )
    for note in found.notes:
        screen.note(note)
    dense = measured.latency["dense"].p50_ms
    kind = "" if where.kind == "measured" else f" ({where.kind})"
    if plot is not None:
        plot_curves(curves, f"{where.name}{kind}", plot)
    screen.show(
        _table(curves),
        "",
        f"{where.name}{kind}: the network takes {dense:.4g} ms; {len(found.rows):,} rows, kept in {found.path}; "
        f"widths worth pruning to are multiples of {step_of(curves)}.",
    )
    screen.emit(
        {
            "device": where.name,
            "kind": where.kind,
            "dense_ms": dense,
            "step": step_of(curves),
            "table": found.path,
            "plot": plot,
            "curves": [
                {
                    "layers": curve.layers,
                    "inputs": curve.dense.inputs,
                    "outputs": curve.dense.outputs,
                    "side": curve.side,
                    "widths": curve.widths,
                    "ms": curve.ms,
                    "efficient": curve.efficient,
                }
                for curve in curves
            ],
        }
    )


def _table(curves: list[LatencyCurve]) -> Table:
    columns = Table(box=None, pad_edge=False)
    for name in ("layer", "side", "times in microseconds, by width", "worth pruning to"):
        columns.add_column(name, overflow="fold")
    for curve in curves:
        row = curve.dense
        more = f" and {len(curve.layers) - 1} more" if len(curve.layers) > 1 else ""
        times = ", ".join(f"{w}: {1000 * t:.3g}" for w, t in zip(curve.widths, curve.ms, strict=True))
        columns.add_row(
            Text(f"{curve.layers[0]}{more} ({row.inputs} to {row.outputs})"),
            curve.side,
            times,
            ", ".join(map(str, curve.efficient)),
        )
    return columns
