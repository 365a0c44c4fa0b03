"""Rows refuse what a page cannot show, and survive the trip through JSON."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_run import unit_rows

from whyprune.errors import InputError
from whyprune.report import UnitRow
from whyprune.report.rows import table


def back(data):
    """The rows of an embedded table."""
    return [UnitRow(data["groups"][row[0]], *row[1:]) for row in data["rows"]]


finite = st.floats(allow_nan=False, allow_infinity=False)
maybe = st.none() | finite
counts = st.integers(0, 2**53)
a_row = st.builds(
    UnitRow,
    *(st.text(max_size=8), st.text(max_size=8), counts, finite, maybe, maybe, maybe),
    *(counts, st.booleans(), counts, counts),
)


@given(rows=st.lists(a_row, max_size=12))
def test_rows_come_back_from_json(rows):
    data = json.loads(json.dumps(table(rows), allow_nan=False))
    assert data["columns"] == [field.name for field in dataclasses.fields(UnitRow)]
    assert back(data) == rows


@pytest.mark.parametrize("name", ["effect", "standard_error", "low", "high"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_refused(name, value):
    with pytest.raises(InputError, match=name):
        dataclasses.replace(unit_rows()[0], **{name: value})
