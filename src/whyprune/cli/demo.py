"""`whyprune demo`: a whole run on scikit-learn's digits, without a download."""

from pathlib import Path
from typing import Annotated

import typer

from whyprune.allocation import Budget
from whyprune.cli.options import JsonOption, QuietOption, SeedOption
from whyprune.cli.screen import Screen
from whyprune.cli.tables import run_tables
from whyprune.errors import InputError
from whyprune.models.digits import EPOCHS
from whyprune.progress import Progress
from whyprune.workspace.destination import Destination
from whyprune.workspace.folder import is_demo, prune_to_folder
from whyprune.workspace.setup import prepare_demo


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to; an earlier demo there is replaced.")] = Path(
        "demo"
    ),
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Trains a small network on handwritten digits, prunes it to half its MACs, and writes the report."""
    screen = Screen(quiet, as_json)
    if out.exists() and not is_demo(out):
        raise InputError(f"{out} exists and is no earlier demo: name another folder with --out")
    destination = Destination.claim(out, overwrite=True)
    screen.note("training a small residual network on scikit-learn's 8x8 digits")
    with Progress(screen.progress) as bars:
        bar = bars.add("Training", EPOCHS)
        setup = prepare_demo(seed, lambda *_: bars.advance(bar))
    screen.note("pruning it to half its MACs")
    record = prune_to_folder(setup, destination, budget=Budget(macs=0.5), seed=seed, progress=screen.progress)
    if record is not None:
        screen.show(run_tables(record, out))
        screen.emit({**record.model_dump(mode="json"), "folder": str(out)})
