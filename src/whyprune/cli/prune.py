"""`whyprune prune`: from a trained network, data and a budget to a result folder."""

from pathlib import Path
from typing import Annotated, Any

import typer

from whyprune.allocation import Budget, Constraints
from whyprune.cli.build import Options, with_options
from whyprune.cli.config import read_config
from whyprune.cli.options import DATA_HELP, JsonOption, ModelArgument, QuietOption, SeedOption
from whyprune.cli.repeat import command_of
from whyprune.cli.screen import Screen
from whyprune.cli.tables import run_tables
from whyprune.cli.texts import one_of
from whyprune.data import Normalization
from whyprune.data.calibration import few_images
from whyprune.effects.outcomes import OUTCOMES
from whyprune.methods import method_names
from whyprune.pipeline.settings import Settings
from whyprune.recovery import Recovery
from whyprune.workspace.configs import DataConfig, NetworkConfig
from whyprune.workspace.destination import Destination
from whyprune.workspace.folder import prune_to_folder
from whyprune.workspace.setup import BATCH_SIZE, prepare

NETWORK, DATA, PRUNING, STAYING, OUTPUT = "Network", "Data", "Pruning", "What must stay", "Output"
TRAINING, TUNING = "Training before pruning", "Recovery by fine-tuning"
TRAINED = Options(
    TRAINING,
    prefix="training_",
    only=("epochs", "learning_rate", "penalty", "penalty_weight"),
    switch="epochs",
    shared=("batch_size", "precision", "accelerator"),
)
TUNED = Options(TUNING, names={"epochs": "finetune_epochs"}, switch="epochs")


def _option(panel: str, text: str, *flags: str, **about: Any) -> Any:
    """An option that fills no field of a configuration."""
    return typer.Option(*flags, help=text, rich_help_panel=panel, **about)


@with_options
def prune(
    ctx: typer.Context,
    model: ModelArgument,
    *,
    network: Annotated[NetworkConfig, Options(NETWORK)],
    data: Annotated[str, _option(DATA, DATA_HELP, metavar="DATA", show_default=False)],
    images: Annotated[DataConfig, Options(DATA)],
    budget: Annotated[
        str,
        _option(
            PRUNING,
            "What the result may cost: macs, params, bytes or memory, and on a --device latency (ms) or energy (mJ), "
            "as a ratio to the dense network (macs=0.5) or an absolute number above 1; several with commas.",
            metavar="KIND=NUMBER",
            show_default=False,
        ),
    ],
    method: Annotated[
        str,
        _option(
            PRUNING,
            "How units are chosen: the causal method, one of its parts, or a score to compare with. "
            "`whyprune methods` lists them.",
            metavar="NAME",
            callback=one_of(tuple(method_names())),
        ),
    ] = "causal",
    outcome: Annotated[
        str | None,
        _option(
            PRUNING,
            "What counts as harm. Default: logit-shift where the output is a vector of logits, else output-shift; "
            f"these and prediction-change need no labels. One of {', '.join(OUTCOMES)}.",
            metavar="NAME",
            callback=one_of(tuple(OUTCOMES)),
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str | None,
        _option(
            PRUNING,
            "Where a latency or energy budget holds and the networks are timed, such as local-ort-1t: see "
            "`whyprune devices list`. Default: PyTorch here, on one thread.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    settings: Annotated[
        Settings,
        Options(PRUNING, panels={"latency": OUTPUT, "refute": OUTPUT, "untrained": NETWORK}, without=("ignore",)),
    ],
    seed: SeedOption = 0,
    constraints: Annotated[Constraints, Options(STAYING, without=("stops",))],
    training: Annotated[Recovery | None, TRAINED],
    recovery: Annotated[Recovery | None, TUNED],
    out: Annotated[Path, _option(OUTPUT, "The folder to write; it must not exist.", metavar="DIR", show_default=False)],
    onnx: Annotated[
        bool | None,
        _option(OUTPUT, "Write model.onnx; default: if the libraries for it are there.", show_default=False),
    ] = None,
    overwrite: Annotated[
        bool,
        _option(OUTPUT, "Replace an earlier result in DIR, and forget an interrupted run.", "--overwrite"),
    ] = False,
    resume: Annotated[bool, _option(OUTPUT, "Go on with an interrupted run.", "--resume")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    config: Annotated[  # noqa: ARG001 - its callback has read it
        Path | None,
        _option(
            OUTPUT,
            "A TOML file with any of these options, by name; flags win over it.",
            metavar="FILE",
            is_eager=True,
            callback=read_config,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Prunes a trained network to a budget: proven right, repaired, measured, saved and explained.

    Example: whyprune prune resnet20 --weights W.safetensors --data parquet:cifar10 --budget macs=0.5 --out D
    """
    screen = Screen(quiet, as_json)
    bounds = Budget.parse(budget)
    trained = recovery or training
    searching = settings.applied(method, bounds).searches
    destination = Destination.claim(
        out, training=trained is not None, searching=searching, overwrite=overwrite, resume=resume
    )
    batch_size = BATCH_SIZE if trained is None else trained.batch_size
    setup = prepare(model, data, network, images, batch_size=batch_size, seed=seed, untrained=settings.untrained)
    if not destination.helper:
        for note in (*destination.notes, *setup.notes, _normalization(setup.normalization)):
            screen.note(note)
    record = prune_to_folder(
        setup,
        destination,
        command=command_of(ctx),
        budget=bounds,
        method=method,
        outcome=outcome,
        constraints=constraints,
        training=training,
        recovery=recovery,
        settings=settings,
        onnx=onnx,
        seed=seed,
        device=device,
        progress=screen.progress and not destination.helper,
    )
    if record is not None:
        screen.show(run_tables(record, out))
        if (few := few_images(setup.calibration.images)) in record.notes:
            screen.note(few)
        screen.emit({**record.model_dump(mode="json"), "folder": str(out)})


def _normalization(used: Normalization | None) -> str:
    if used is None:
        return "normalisation: none, the data comes normalised"
    mean, std = (", ".join(f"{v:.4g}" for v in values) for values in (used.mean, used.std))
    return f"normalisation: mean ({mean}), std ({std}); {used.origin}"
