"""Options that several commands share, and how their values are read."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

MODEL_HELP = (
    "The network: resnet20, resnet56, vgg16_bn, mobilenet_v2 or digits_cnn, your own package.module:factory, "
    "timm:NAME or transformers:NAME."
)
DATA_HELP = (
    "The images: digits, parquet:FOLDER (train-*.parquet, test-*.parquet), hf:NAME, imagefolder:FOLDER, "
    "or your own package.module:factory."
)


def one_of(names: Sequence[str]) -> Callable[[str | None], str | None]:
    """A callback that refuses all other values."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in names:
            raise typer.BadParameter(f"there is no {value!r}: choose from {', '.join(names)}")
        return value

    return check


def numbers(text: str | None) -> list[float] | None:
    """`0.5,0.4` as numbers."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r}: give numbers with commas between them, one per channel") from None


def sizes(text: str | None) -> list[int] | None:
    """`3,224,224` as integers."""
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r}: give whole numbers with commas between them") from None


ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]
FolderArgument = Annotated[
    Path,
    typer.Argument(metavar="DIR", help="The folder that `whyprune prune --out` wrote.", show_default=False),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Trained weights, a safetensors file. Built-in networks need one.",
        rich_help_panel="Network",
        show_default=False,
    ),
]
ClassesOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Classes of the network; default: those of the data.",
        rich_help_panel="Network",
        show_default=False,
    ),
]
InputShapeOption = Annotated[
    str | None,
    typer.Option(
        metavar="C,H,W",
        help="Shape of one image, such as 3,224,224. Built-in networks have one.",
        rich_help_panel="Network",
        show_default=False,
    ),
]
RecordedModelOption = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="The network before pruning, as given to `prune`. Needed only if it is your own "
        "package.module:factory: a result folder never runs code by itself.",
        show_default=False,
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object on standard output, nothing else.", rich_help_panel="Output"),
]
QuietOption = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print nothing but errors (and JSON).", rich_help_panel="Output"),
]
SeedOption = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        help="Of everything drawn at random; the same seed gives the same plan.",
        rich_help_panel="Pruning",
    ),
]
