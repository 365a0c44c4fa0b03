"""`Result`: what `prune` gives back, and how it is saved and reported."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import nn

from whyprune.atomic import atomic_file
from whyprune.effects.effects import Effects
from whyprune.errors import InputError, MissingDependencyError, TraceError, VerificationError
from whyprune.report import UnitRow, write_report
from whyprune.report.words import percent, share
from whyprune.results import RunResult
from whyprune.structure.cost import marginal
from whyprune.structure.file import save_plan, save_weights
from whyprune.structure.network import Network
from whyprune.structure.plan import Plan

RESULT, EFFECTS, REPORT, ONNX = "result.json", "effects.parquet", "report.html", "model.onnx"


@dataclass(frozen=True)
class Result:
    """A pruned network with its plan, the effects behind it, and what was measured.

    Attributes:
        model: the pruned network, of the user's own class, in evaluation mode.
        plan: what was removed.
        effects: what removing each unit does, as estimated on the dense network.
        measurements: everything that was asked for and measured.
        network: the traced original, after widening where a method widens.
    """

    model: nn.Module
    plan: Plan
    effects: Effects
    measurements: RunResult
    network: Network

    def save(self, folder: str | Path, *, overwrite: bool = False, onnx: bool | None = None) -> Path:
        """Writes the result folder, whole or not at all.

        Args:
            folder: where to; must not exist, or `overwrite` must be set.
            overwrite: replace an existing folder.
            onnx: write `model.onnx`; default: if the libraries for it are installed.

        Raises:
            InputError: the folder exists, or cannot be written.
        """
        target = Path(folder)
        check_target(target, overwrite)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
                built = Path(temporary, "result")
                built.mkdir()
                self._write(built, onnx, target.name)
                _replace_folder(built, target, Path(temporary, "old"))
        except (OSError, InputError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(cause, OSError):
                raise
            reason = cause.strerror or str(cause)
            raise InputError(f"cannot write {target}: {reason}; nothing was left there") from error
        return target

    def report(self, path: str | Path) -> Path:
        """Writes the report, one self-contained HTML file."""
        return write_page(Path(path), self.measurements, self.rows(), self.effects)

    def rows(self) -> list[UnitRow]:
        """One row per unit, for the report."""
        savings = {g.name: marginal(self.network.cost, g) for g in self.network.groups}
        return unit_rows(self.effects, self.plan, savings)

    def _write(self, folder: Path, onnx: bool | None, name: str) -> None:
        save_plan(self.plan, folder)
        save_weights(self.model, folder)
        rows = self.rows()
        table = self.effects.table(self.plan.units)
        for saved in ("macs", "params"):
            table = table.append_column(saved, pa.array([getattr(row, saved) for row in rows], pa.int64()))
        pq.write_table(table, folder / EFFECTS)
        notes = [] if onnx is False else self._write_onnx(folder / ONNX, required=onnx is True)
        measurements = self.measurements.model_copy(update={"notes": [*self.measurements.notes, *notes]})
        with atomic_file(folder / RESULT) as path:
            path.write_text(measurements.model_dump_json(indent=1), encoding="utf-8")
        write_page(folder / REPORT, measurements, rows, self.effects, name)

    def _write_onnx(self, path: Path, required: bool) -> list[str]:
        """Writes the ONNX file; where it is not required, a failure is a note, not the end of a long run."""
        from whyprune.devices import export_onnx

        try:
            export_onnx(self.model, self.network.example, path)
        except (MissingDependencyError, TraceError, VerificationError) as error:
            if required:
                raise
            return [f"{path.name} was not written: {error}"]
        return []

    def __repr__(self) -> str:
        dense, pruned, found = self.measurements.dense, self.measurements.pruned, self.measurements.verdict
        from_dense = "" if dense.top1_percent is None else f"{dense.top1_percent:.2f}% -> "
        accuracy = "" if pruned.top1_percent is None else f", top-1 {from_dense}{pruned.top1_percent:.2f}%"
        warned = "NOT USABLE, " if found is not None and found.usable is False else ""
        level = "" if found is None or found.level is None or warned else f", function {found.level}"
        macs, params = (percent(share(getattr(pruned, k), getattr(dense, k)), 1) for k in ("macs", "params"))
        return f"Result({warned}MACs {macs}, params {params}{accuracy}{level})"


def check_target(folder: Path, overwrite: bool) -> None:
    """Refuses to replace a folder unasked, or something that is no result folder at all.

    Raises:
        InputError: it exists, or could not be made.
    """
    if not folder.exists():
        home = next(p for p in folder.absolute().parents if p.exists())
        if not home.is_dir() or not os.access(home, os.W_OK | os.X_OK):
            raise InputError(f"{folder} cannot be made: {home} is no folder you can write to")
        return
    if not overwrite:
        raise InputError(f"{folder} exists: name another folder, or say --overwrite to replace it")
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / RESULT).exists()):
        raise InputError(f"{folder} is no result folder: it is not replaced, name another one")


def unit_rows(effects: Effects, plan: Plan, savings: Mapping[str, np.ndarray]) -> list[UnitRow]:
    """One row per unit with its effect, interval and what its removal alone saves."""
    low, high = effects.interval
    gone = set(plan.units)

    def known(value: float) -> float | None:
        return None if np.isnan(value) else float(value)

    return [
        UnitRow(
            group=group,
            unit=unit,
            index=int(unit.rpartition(":")[2]),
            effect=known(effects.mean[k]),
            standard_error=known(effects.standard_error[k]),
            low=known(low[k]),
            high=known(high[k]),
            samples=0 if np.isnan(effects.mean[k]) else effects.samples,
            removed=unit in gone,
            macs=int(savings[group][0]),
            params=int(savings[group][1]),
        )
        for k, (unit, group) in enumerate(zip(effects.units, effects.groups, strict=True))
    ]


def write_page(
    path: Path, measurements: RunResult, rows: list[UnitRow], effects: Effects, folder: str | None = None
) -> Path:
    """Writes the report page."""
    about: dict[str, Any] = {} if folder is None else {"folder": folder}
    return write_report(
        path,
        measurements,
        rows,
        outcome=effects.outcome,
        intervention=effects.intervention,
        estimand=effects.estimand,
        method=str(measurements.asked.get("method", effects.method)),
        **about,
    )


def _replace_folder(built: Path, target: Path, old: Path) -> None:
    if target.exists():
        target.rename(old)
        try:
            built.rename(target)
        except BaseException:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        built.rename(target)
