"""A finished stage on disk: what is known after repair, so that an interrupted recovery need not prune again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError
from pydantic_core import to_jsonable_python
from torch import nn

from whyprune.atomic import atomic_file
from whyprune.effects.effects import Effects
from whyprune.errors import FormatError
from whyprune.models.weights import load_weights
from whyprune.results import (
    AccuracyAfter,
    Certificate,
    Interval,
    JointEffect,
    MeasuredBudget,
    Record,
    Refutation,
    Verification,
)
from whyprune.structure.file import read_plan, save_plan, save_weights
from whyprune.structure.plan import Plan, replay_plan

STAGE, EFFECTS, SEARCH = "stage.json", "effects.parquet", "search.json"
"""Files in a run's workspace; the last one has the plans that a search has measured."""


class StageRecord(Record):
    """What was asked for and measured up to repair; `dense_wrong` are the test images the dense network gets wrong."""

    asked: dict[str, Any]
    verify: Verification
    joint_effect: JointEffect | None
    accuracy_after: AccuracyAfter
    dense_top1_percent: float | None
    dense_top1_interval_percent: Interval | None
    chance_percent: float | None = None
    repaired_top1_interval_percent: Interval | None
    dense_wrong: list[int] | None
    certificate: Certificate | None
    refutations: list[Refutation]
    budgets: list[MeasuredBudget]
    timings_s: dict[str, float]
    notes: list[str]


@dataclass(frozen=True)
class Stage:
    """The network after removal and repair, with everything measured of it."""

    plan: Plan
    model: nn.Module
    effects: Effects
    record: StageRecord


def save_stage(stage: Stage, folder: Path) -> None:
    """Writes a stage; the record comes last, so that a stage with a record is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    save_plan(stage.plan, folder)
    save_weights(stage.model, folder)
    with atomic_file(folder / EFFECTS) as path:
        pq.write_table(stage.effects.table(stage.plan.units), path)
    with atomic_file(folder / STAGE) as path:
        path.write_text(stage.record.model_dump_json(indent=1), encoding="utf-8")


def load_stage(model: nn.Module, folder: Path, asked: dict[str, Any]) -> Stage | None:
    """The stage in a folder; None where there is none.

    Raises:
        FormatError: it is damaged, or of a run that asked for something else.
    """
    path = folder / STAGE
    if not path.is_file():
        return None
    try:
        record = StageRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise FormatError(f"{path} is damaged: {error.errors()[0]['msg']}; delete {folder} and start again") from error
    for key, value in to_jsonable_python(asked).items():
        if record.asked.get(key) != value:
            raise FormatError(
                f"{folder} holds a run with {key}={record.asked.get(key)!r}, now it is {value!r}: "
                "resume with the same settings, or start again without --resume"
            )
    plan = read_plan(folder)
    pruned = replay_plan(model, plan)
    load_weights(pruned, folder / "model.safetensors")
    try:
        effects = _effects(pq.read_table(folder / EFFECTS))
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise FormatError(f"{folder / EFFECTS} is damaged: delete {folder} and start again") from error
    return Stage(plan, pruned.eval(), effects, record)


def _effects(table: pa.Table) -> Effects:
    columns = table.to_pydict()

    def floats(name: str) -> np.ndarray:
        return np.array([np.nan if v is None else v for v in columns[name]], dtype=np.float64)

    def one(name: str) -> Any:
        return columns[name][0] if columns[name] else ""

    return Effects(
        units=tuple(columns["unit"]),
        groups=tuple(columns["group"]),
        mean=floats("effect"),
        standard_error=floats("standard_error"),
        samples=int(one("samples") or 0),
        outcome=one("outcome"),
        intervention=one("intervention"),
        estimand=one("estimand"),
        method=one("method"),
        bounds=(floats("interval_low"), floats("interval_high")),
    )
