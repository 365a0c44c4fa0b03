"""`whyprune inspect`: what of a network can go, what it costs, and what must stay."""

from typing import Annotated

import typer

from whyprune.cli.options import (
    ClassesOption,
    InputShapeOption,
    JsonOption,
    ModelArgument,
    OutputsOption,
    WeightsOption,
)
from whyprune.cli.screen import Screen
from whyprune.cli.tables import network_tables
from whyprune.cli.texts import sizes
from whyprune.models import load_weights
from whyprune.structure.trace import trace
from whyprune.workspace.describe import describe
from whyprune.workspace.setup import network_and_example


def inspect(
    model: ModelArgument,
    *,
    weights: WeightsOption = None,
    num_classes: ClassesOption = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Rows and columns of the images.",
            rich_help_panel="Network",
            show_default=False,
        ),
    ] = None,
    input_shape: InputShapeOption = None,
    outputs: OutputsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Shows what of a network can be removed, what that costs, and what is kept whole and why.

    Weights play no part in it; with --weights they are checked to fit.
    """
    screen = Screen(as_json=as_json)
    network, example = network_and_example(
        model, num_classes=num_classes, input_shape=sizes(input_shape), image_size=image_size
    )
    if weights is not None and (said := load_weights(network, weights)):
        screen.note(said)
    traced = trace(network, example, outputs=outputs or None)
    screen.show(network_tables(traced))
    screen.emit(describe(traced))
