"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from whyprune.cli.build import option_of
from whyprune.pipeline.settings import Settings
from whyprune.workspace.configs import NetworkConfig

MODEL_HELP = (
    "The network: resnet20, resnet56, vgg16_bn, mobilenet_v2 or digits_cnn, your own package.module:factory, "
    "timm:NAME or transformers:NAME."
)
DATA_HELP = (
    "The images: digits, parquet:FOLDER (train-*.parquet, test-*.parquet), hf:NAME, imagefolder:FOLDER, "
    "or your own package.module:factory."
)


ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]
FolderArgument = Annotated[
    Path,
    typer.Argument(metavar="DIR", help="The folder that `whyprune prune --out` wrote.", show_default=False),
]
WeightsOption = Annotated[Path | None, option_of(NetworkConfig, "weights", "Network")]
ClassesOption = Annotated[int | None, option_of(NetworkConfig, "num_classes", "Network")]
InputShapeOption = Annotated[
    str | None,
    typer.Option(
        metavar="C,H,W",
        help="Shape of one image, such as 3,224,224. Built-in networks have one.",
        rich_help_panel="Network",
        show_default=False,
    ),
]
OutputsOption = Annotated[list[str] | None, option_of(Settings, "outputs", "Network")]
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
        max=2**32 - 1,
        help="Of everything drawn at random; the same seed gives the same plan.",
        rich_help_panel="Pruning",
    ),
]
