"""`whyprune evaluate`: the accuracy of a saved result, measured again."""

from typing import Annotated, Literal, cast

import typer

from whyprune.cli.options import DATA_HELP, FolderArgument, JsonOption, RecordedModelOption
from whyprune.cli.screen import Screen
from whyprune.cli.texts import one_of
from whyprune.report.words import percent, share
from whyprune.workspace.folder import evaluate_folder, read_record

SPLITS = ("test", "train")


def evaluate(
    folder: FolderArgument,
    *,
    data: Annotated[str, typer.Option(metavar="DATA", help=DATA_HELP, show_default=False)],
    split: Annotated[
        str, typer.Option(metavar="test|train", callback=one_of(SPLITS), help="Which images to measure on.")
    ] = "test",
    model: RecordedModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Builds the network again, loads the pruned weights from DIR, and measures top-1 accuracy."""
    screen = Screen(as_json=as_json)
    measured = evaluate_folder(folder, data, split=cast(Literal["train", "test"], split), model=model)
    record = read_record(folder)
    low, high = measured.interval_percent
    pruned, dense = record.pruned, record.dense
    recorded = "not recorded" if pruned.top1_percent is None else f"{pruned.top1_percent:.2f}%"
    screen.show(
        f"top-1 on {split}: {measured.top1_percent:.2f}% (95%: {low:.2f} to {high:.2f}) "
        f"of {measured.images:,} images; recorded on test: {recorded}",
        f"MACs: {pruned.macs:,} of {dense.macs:,} ({percent(share(pruned.macs, dense.macs), 1)}); "
        f"parameters: {pruned.params:,} of {dense.params:,} ({percent(share(pruned.params, dense.params), 1)})",
    )
    screen.emit(
        {
            "split": split,
            "images": measured.images,
            "top1_percent": measured.top1_percent,
            "top1_interval_percent": [low, high],
            "recorded_top1_percent": pruned.top1_percent,
            "macs": pruned.macs,
            "params": pruned.params,
        }
    )
