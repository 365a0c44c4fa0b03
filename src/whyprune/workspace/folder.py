"""Result folders: made by a run, and read, evaluated, exported and reported again."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from whyprune.data.batches import Batch
from whyprune.data.outputs import logits_of
from whyprune.devices import Accuracy, accuracy, export_onnx
from whyprune.errors import FormatError, InputError
from whyprune.pipeline.result import EFFECTS, ONNX, REPORT, RESULT
from whyprune.pipeline.settings import Settings
from whyprune.prune import prune
from whyprune.report import UnitRow, write_report
from whyprune.results import RunResult
from whyprune.structure.file import load
from whyprune.structure.outputs import output_named
from whyprune.workspace.destination import Destination
from whyprune.workspace.recipe import Recipe, fresh_network, split_loader
from whyprune.workspace.setup import Setup


def prune_to_folder(
    setup: Setup,
    destination: Destination,
    *,
    command: str | None = None,
    settings: Settings | None = None,
    onnx: bool | None = None,
    **how: Any,
) -> RunResult | None:
    """Prunes and writes the result folder.

    Args:
        setup: network and data.
        destination: where to.
        command: how to repeat the run, for the record.
        settings: as for `prune`.
        onnx: as for `Result.save`.
        how: further arguments of `prune`: budget, method, outcome, recovery, seed, progress.

    Returns:
        The record as written; None in a process that only helps another one.

    Raises:
        KeyboardInterrupt: passed on, with a sentence about what is kept.
        WhypruneError: as `prune` and `Result.save`; a note says what is kept.
    """
    chosen = settings or Settings()
    try:
        result = prune(
            setup.model,
            setup.calibration,
            example_inputs=setup.example_inputs,
            recovery_data=setup.training,
            test=None if destination.helper else setup.test,
            augment=setup.augment,
            settings=replace(chosen, latency=chosen.latency and not destination.helper),
            workspace=destination.workspace,
            resume=destination.resume,
            asked=setup.asked if command is None else {**setup.asked, "command": command},
            **how,
        )
        if destination.helper:
            return None
        result.save(destination.out, overwrite=destination.overwrite, onnx=onnx)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted: {destination.kept() or 'nothing was written'}") from None
    except Exception as error:
        # What is wrong with files that are resumed from says its own way out.
        if not isinstance(error, FormatError) and (kept := destination.kept()) is not None:
            error.add_note(kept)
        raise
    finally:
        destination.tidy()
    destination.finish()
    return read_record(destination.out)


def read_record(folder: str | Path) -> RunResult:
    """Reads `result.json`.

    Raises:
        FormatError: it is missing or no record of a run.
    """
    path = Path(folder) / RESULT
    try:
        return RunResult.model_validate_json(path.read_bytes())
    except OSError as error:
        raise FormatError(
            f"cannot read {path} ({error.strerror}): give the folder that `whyprune prune --out` wrote"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise FormatError(f"{path} is no record of a run: {place}: {first['msg']}") from error


def is_demo(folder: str | Path) -> bool:
    """Whether the folder holds the result of an earlier demo, which the next one may replace."""
    try:
        return read_record(folder).asked.get("demo") is True
    except FormatError:
        return False


def load_pruned(folder: str | Path, model: str | None = None) -> nn.Module:
    """Builds the network of a result folder that a named network was pruned to.

    Args:
        folder: the result folder.
        model: the network, as `load_model` reads it; needed where it is from the user's own code.

    Raises:
        InputError: the network is from user code and was not named.
        FormatError: a file is missing, damaged, or does not fit the network.
    """
    return load(fresh_network(Recipe.of(read_record(folder)), model), folder)


def evaluate_folder(
    folder: str | Path,
    data: str,
    *,
    split: Literal["train", "test"] = "test",
    model: str | None = None,
    progress: bool = True,
) -> Accuracy:
    """Top-1 accuracy of a saved result, measured again.

    Args:
        folder: the result folder.
        data: as `load_source` reads it.
        split: which images.
        model: as for `load_pruned`.
        progress: show a progress bar.
    """
    pruned = load_pruned(folder, model)
    record = read_record(folder)
    loader = split_loader(Recipe.of(record), data, split)
    read = _reading(record.asked.get("outputs"))
    return accuracy(pruned, loader, progress=progress, description=f"Accuracy on {loader.split.name}", logits=read)


def _reading(outputs: Sequence[str] | None) -> Callable[[Any], Tensor]:
    """From what a saved network returns to its logits: the one output that counted in the run.

    Raises:
        InputError: several counted, which has no accuracy.
    """
    if outputs is not None and len(outputs) > 1:
        raise InputError(
            f"there is no accuracy: the outputs {', '.join(outputs)} counted in this run, not logits alone"
        )
    return logits_of if not outputs else lambda output: output_named(output, outputs[0])


def export_folder(folder: str | Path, path: str | Path | None = None, model: str | None = None) -> tuple[Path, float]:
    """Writes a saved result as ONNX, checked against PyTorch on random inputs.

    Args:
        folder: the result folder.
        path: the file; default `model.onnx` in the folder.
        model: as for `load_pruned`.

    Returns:
        The file, and the largest absolute difference of its outputs.
    """
    target = Path(folder) / ONNX if path is None else Path(path)
    shape = Recipe.of(read_record(folder)).image_shape
    example = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    return target, export_onnx(load_pruned(folder, model), Batch((example,), {}), target)


def report_folder(folder: str | Path, path: str | Path | None = None) -> Path:
    """Writes the report of a saved result again, from its files alone.

    Raises:
        FormatError: `result.json` or `effects.parquet` is missing or damaged.
    """
    record = read_record(folder)
    table = _effects(Path(folder) / EFFECTS)
    try:
        rows = [_row(entry) for entry in table.to_pylist()]
        about = {key: _only(table, key) for key in ("outcome", "intervention", "estimand")}
        method = str(record.asked.get("method") or _only(table, "method"))
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{Path(folder) / EFFECTS} is no table of effects ({error!r}): prune again") from error
    target = Path(folder) / REPORT if path is None else Path(path)
    name = Path(folder).absolute().name
    return write_report(target, record, rows, method=method, folder=name, **about)


def _effects(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise FormatError(f"cannot read {path} ({error}): prune again") from error


def _row(entry: dict[str, Any]) -> UnitRow:
    def known(name: str) -> float | None:
        value = entry[name]
        return None if value is None or math.isnan(value) else float(value)

    return UnitRow(
        group=entry["group"],
        unit=entry["unit"],
        index=int(entry["unit"].rpartition(":")[2]),
        effect=known("effect"),
        standard_error=known("standard_error"),
        low=known("interval_low"),
        high=known("interval_high"),
        samples=0 if known("effect") is None else int(entry["samples"]),
        removed=bool(entry["removed"]),
        macs=int(entry["macs"]),
        params=int(entry["params"]),
    )


def _only(table: pa.Table, column: str) -> str:
    values = np.unique(table.column(column).to_pylist()).tolist()
    return str(values[0]) if values else ""
