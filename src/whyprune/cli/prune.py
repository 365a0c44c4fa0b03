"""`whyprune prune`: from a trained network, data and a budget to a result folder."""

from pathlib import Path
from typing import Annotated, Any

import typer

from whyprune.allocation import ALLOCATORS, Budget
from whyprune.cli.config import read_config
from whyprune.cli.limits import (
    IgnoreOption,
    MaxShareOption,
    MinWidthOption,
    RoundToOption,
    TogetherOption,
    constraints_of,
)
from whyprune.cli.options import (
    DATA_HELP,
    ClassesOption,
    JsonOption,
    ModelArgument,
    QuietOption,
    SeedOption,
    WeightsOption,
    numbers,
    one_of,
)
from whyprune.cli.repeat import command_of
from whyprune.cli.screen import Screen
from whyprune.cli.tables import run_tables
from whyprune.data import Normalization
from whyprune.effects.outcomes import OUTCOMES
from whyprune.methods import method_names
from whyprune.pipeline.settings import Settings
from whyprune.recovery import Recovery
from whyprune.repair.registry import REPAIRS
from whyprune.workspace.destination import Destination
from whyprune.workspace.folder import prune_to_folder
from whyprune.workspace.setup import BATCH_SIZE, CALIBRATION_IMAGES, prepare

DATA, NETWORK, PRUNING, TUNING, OUTPUT = "Data", "Network", "Pruning", "Recovery by fine-tuning", "Output"
NAMES = {
    "method": tuple(method_names()),
    "outcome": tuple(OUTCOMES),
    "allocation": tuple(ALLOCATORS),
    "repair": tuple(REPAIRS),
    "optimizer": ("sgd", "adamw"),
    "precision": ("32-true", "bf16-mixed", "16-mixed"),
}


def _option(panel: str, text: str, *flags: str, **about: Any) -> Any:
    """A documented option."""
    return typer.Option(*flags, help=text, rich_help_panel=panel, **about)


def _choice(name: str, panel: str, text: str) -> Any:
    """An option that takes one of some names."""
    return _option(panel, f"{text} One of {', '.join(NAMES[name])}.", metavar="NAME", callback=one_of(NAMES[name]))


def prune(
    ctx: typer.Context,
    model: ModelArgument,
    *,
    weights: WeightsOption = None,
    num_classes: ClassesOption = None,
    data: Annotated[str, _option(DATA, DATA_HELP, metavar="DATA", show_default=False)],
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
    out: Annotated[Path, _option(OUTPUT, "The folder to write; it must not exist.", metavar="DIR", show_default=False)],
    image_size: Annotated[
        int | None,
        _option(DATA, "Resize and centre-crop images to this many pixels.", metavar="N", min=1, show_default=False),
    ] = None,
    mean: Annotated[
        str | None,
        _option(
            DATA,
            "Normalisation: mean per channel, of pixels in 0 to 1, as 0.49,0.48,0.45. Default: what the "
            "JSON file of the same name beside the weights states, else the built-in network's own.",
            metavar="NUMBERS",
            show_default=False,
        ),
    ] = None,
    std: Annotated[
        str | None,
        _option(DATA, "Normalisation: standard deviation per channel.", metavar="NUMBERS", show_default=False),
    ] = None,
    calibration_images: Annotated[
        int,
        _option(DATA, "Images of the training split to measure effects on and to repair with.", metavar="N", min=2),
    ] = CALIBRATION_IMAGES,
    augment: Annotated[
        bool,
        _option(
            DATA,
            "Shift images at random, and mirror those in colour, for repair and recovery.",
            show_default=False,
        ),
    ] = True,
    method: Annotated[
        str,
        _choice(
            "method",
            PRUNING,
            "How units are chosen: the causal method, one of its parts, or a score to compare with.",
        ),
    ] = "causal",
    outcome: Annotated[
        str,
        _choice("outcome", PRUNING, "What counts as harm; logit-shift and prediction-change need no labels."),
    ] = "logit-shift",
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
    allocation: Annotated[
        str | None,
        _choice("allocation", PRUNING, "How much goes where; default by method, and causal has its own."),
    ] = None,
    blocks: Annotated[
        bool | None,
        _option(
            PRUNING,
            "Residual blocks may go as a whole (method causal). Default: where a budget is on a device.",
            show_default=False,
        ),
    ] = None,
    repair: Annotated[
        str, _choice("repair", PRUNING, "What is done without labels to the weights that stay.")
    ] = "refit",
    ignore: IgnoreOption = None,
    round_to: RoundToOption = None,
    min_width: MinWidthOption = None,
    max_share: MaxShareOption = None,
    together: TogetherOption = None,
    seed: SeedOption = 0,
    finetune_epochs: Annotated[
        int, _option(TUNING, "Epochs on the training split; 0 for none.", metavar="N", min=0)
    ] = 0,
    learning_rate: Annotated[float, _option(TUNING, "The highest of its cosine schedule.", metavar="X")] = 0.01,
    batch_size: Annotated[int, _option(TUNING, "Images per step.", metavar="N", min=1)] = BATCH_SIZE,
    distill: Annotated[
        float,
        _option(
            TUNING,
            "Share of the loss that follows the dense network instead of the labels, 0 to 1.",
            metavar="X",
        ),
    ] = 0.0,
    temperature: Annotated[
        float, _option(TUNING, "Softens both networks' answers when distilling.", metavar="X")
    ] = 4.0,
    optimizer: Annotated[str, _choice("optimizer", TUNING, "How steps are made.")] = "sgd",
    weight_decay: Annotated[float, _option(TUNING, "Pull of weights towards zero.", metavar="X")] = 5e-4,
    warmup_fraction: Annotated[
        float, _option(TUNING, "Share of all steps with a rising learning rate.", metavar="X")
    ] = 0.0,
    label_smoothing: Annotated[
        float, _option(TUNING, "Share of each label spread over all classes.", metavar="X")
    ] = 0.0,
    follow: Annotated[
        float,
        _option(TUNING, "Weight of the loss that follows the dense network's channels, layer by layer.", metavar="X"),
    ] = 0.0,
    mixup_alpha: Annotated[
        float,
        _option(TUNING, "Train on images in pairs, one shining through the other; 0 for none, 1 strong.", metavar="X"),
    ] = 0.0,
    validation_fraction: Annotated[
        float,
        _option(TUNING, "Share of the training split that is kept apart to choose the best epoch.", metavar="X"),
    ] = 0.1,
    precision: Annotated[str, _choice("precision", TUNING, "Number format of fine-tuning.")] = "32-true",
    accelerator: Annotated[
        str, _option(TUNING, "As Lightning Fabric names it: cpu, cuda, mps, auto.", metavar="NAME")
    ] = "auto",
    devices: Annotated[str, _option(TUNING, "How many devices, which (0,2), or auto.", metavar="NAME")] = "1",
    latency: Annotated[
        bool, _option(OUTPUT, "Measure latency of both networks on this machine.", show_default=False)
    ] = True,
    refute: Annotated[
        bool,
        _option(OUTPUT, "Try to refute the effects behind the plan, on images kept apart for it.", show_default=False),
    ] = True,
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
    settings = Settings(allocation=allocation, repair=repair, latency=latency, refute=refute, blocks=blocks)
    constraints = constraints_of(ignore, round_to, min_width, max_share, together)
    tuning: dict[str, Any] = {
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "distill": distill,
        "temperature": temperature,
        "optimizer": optimizer,
        "weight_decay": weight_decay,
        "warmup_fraction": warmup_fraction,
        "label_smoothing": label_smoothing,
        "follow": follow,
        "mixup_alpha": mixup_alpha,
        "validation_fraction": validation_fraction,
        "precision": precision,
        "accelerator": accelerator,
        "devices": int(devices) if devices.isdecimal() else devices,
    }
    recovery = Recovery(epochs=finetune_epochs, **tuning) if finetune_epochs else None
    destination = Destination.claim(out, recovering=recovery is not None, overwrite=overwrite, resume=resume)
    setup = prepare(
        model,
        data,
        weights=weights,
        num_classes=num_classes,
        image_size=image_size,
        mean=numbers(mean),
        std=numbers(std),
        augment=augment,
        calibration_images=calibration_images,
        batch_size=batch_size,
        seed=seed,
    )
    if not destination.helper:
        screen.note(_normalization(setup.normalization))
    record = prune_to_folder(
        setup,
        destination,
        command=command_of(ctx),
        budget=bounds,
        method=method,
        outcome=outcome,
        constraints=constraints,
        recovery=recovery,
        settings=settings,
        onnx=onnx,
        seed=seed,
        device=device,
        progress=screen.progress and not destination.helper,
    )
    if record is not None:
        screen.show(run_tables(record, out))
        screen.emit({**record.model_dump(mode="json"), "folder": str(out)})


def _normalization(used: Normalization | None) -> str:
    if used is None:
        return "normalisation: none, the data comes normalised"
    mean, std = (", ".join(f"{v:.4g}" for v in values) for values in (used.mean, used.std))
    return f"normalisation: mean ({mean}), std ({std}); {used.origin}"
