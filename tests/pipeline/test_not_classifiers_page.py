"""The page on networks that are not classifiers says what is true, and its example runs."""

import re
from pathlib import Path

import pytest

from whyprune.effects.verdict import CHANCE, LEVELS

PAGE = (Path(__file__).parents[2] / "docs" / "not-classifiers.md").read_text()


@pytest.fixture(scope="module")
def example():
    found = {"__name__": "example"}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, found)
    return found


def test_the_example_keeps_both_heads_and_says_which_counted(example):
    record = example["result"].measurements
    assert record.pruned.macs <= 0.5 * record.dense.macs
    assert record.verdict.usable
    assert any("'kind'" in note and "'ink'" in note for note in record.notes)
    dense, pruned = example["right"]
    assert pruned > dense - 0.1
    assert example["error"][1] < 0.5 * (example["ink"] - example["ink"].mean()).abs().mean()


def test_what_does_not_count_is_said_and_an_outcome_of_ones_own_gets_what_the_model_returns(example):
    assert any("Not counted" in note and "'ink'" in note for note in example["kind"].measurements.notes)
    own = example["own"].measurements.joint_effect
    assert own.outcome == "ink_error"
    assert 0 < own.constant < 2


def test_the_levels_on_the_page_are_those_of_the_code():
    for share, name in LEVELS:
        assert f"| {100 * share:g}% | {name} |" in PAGE
    assert "less than a fifth" in PAGE
    assert CHANCE == 1 / 5
