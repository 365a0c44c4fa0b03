"""Budgets on a device: how they were come to is shown, also from files that call iterations turns."""

import json

import pytest
from made_up_run import WORDS, full_result, unit_rows
from pydantic import ValidationError

from whyprune.report import render
from whyprune.results import BudgetIteration, MeasuredBudget, RunResult

ROWS = unit_rows()
STEPS = [
    BudgetIteration(
        kind="latency",
        asked_ratio=0.5,
        predicted_ratio=predicted,
        measured_ratio=measured,
        measured_ratio_interval=(measured - 0.01, measured + 0.01),
        macs=macs,
        params=100,
    )
    for predicted, measured, macs in ((0.4875, 0.6125, 41_234), (0.4375, 0.4925, 37_654))
]


def result() -> RunResult:
    budget = MeasuredBudget(
        kind="latency",
        device="local-ort-1t",
        device_kind="measured",
        asked=0.5,
        asked_ratio=0.5,
        dense=8.0,
        predicted_ratio=0.4375,
        measured_ratio=0.4925,
        measured_ratio_interval=(0.4825, 0.5025),
        table_rows=12,
        priced_operations=3,
        operations=5,
        share_of_rows=0.9,
        iterations=STEPS,
    )
    return full_result(ROWS, budgets=[budget])


def as_written_before() -> dict:
    record = json.loads(result().model_dump_json())
    record["budgets"][0]["turns"] = record["budgets"][0].pop("iterations")
    return record


def test_a_file_that_calls_iterations_turns_is_read_and_written_anew():
    found = RunResult.model_validate_json(json.dumps(as_written_before()))
    assert found == result()
    written = json.loads(found.model_dump_json())["budgets"][0]
    assert "turns" not in written
    assert [step["macs"] for step in written["iterations"]] == [41_234, 37_654]
    assert RunResult.model_validate_json(found.model_dump_json()) == found


def test_a_budget_with_both_names_or_none_is_refused():
    both, none = as_written_before(), as_written_before()
    both["budgets"][0]["iterations"] = both["budgets"][0]["turns"]
    del none["budgets"][0]["turns"]
    for record in (both, none):
        with pytest.raises(ValidationError):
            RunResult.model_validate_json(json.dumps(record))


def test_the_page_shows_every_iteration():
    page = render(result(), ROWS, **WORDS)
    assert "with 2 plans measured on the way" in page
    for step in STEPS:
        assert f"{step.macs:,}" in page
        assert f"{100 * step.measured_ratio:.1f}%" in page
