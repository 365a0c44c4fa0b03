"""A configuration's fields say what they are once: words, ranges and choices come from the class."""

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from pydantic import Field

from whyprune.errors import InputError
from whyprune.fields import MISSING, attribute_docs, check_fields, fields_of, ranged
from whyprune.pipeline.settings import Settings
from whyprune.recovery import Recovery


@dataclass
class Made:
    """One.

    Attributes:
        name: two lines
            of words: here.
        share: a share.

    Raises:
        InputError: never: said elsewhere.
    """

    name: str
    share: Annotated[float | None, Field(ge=0, lt=1)] = None
    kind: Literal["a", "b"] | None = None


def test_words_ranges_and_choices_are_found():
    assert attribute_docs(Made) == {"name": "two lines of words: here.", "share": "a share."}
    name, share, kind = fields_of(Made)
    assert (name.default, name.words, name.choices, name.rules) == (MISSING, "two lines of words: here.", None, {})
    assert (share.default, share.rules) == (None, {"ge": 0, "lt": 1})
    assert tuple(kind.choices.names) == ("a", "b")


@pytest.mark.parametrize("configuration", [Settings, Recovery])
def test_every_field_is_documented(configuration):
    assert all(about.words.endswith(".") for about in fields_of(configuration))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"share": 1.0}, r"share=1\.0: give a finite number x with 0<=x<1"),
        ({"share": -0.1}, r"share=-0\.1"),
        ({"share": float("nan")}, "share=nan"),
        ({"kind": "c"}, "no kind named 'c': choose from a, b"),
    ],
)
def test_what_is_out_of_range_is_refused(values, message):
    check_fields(Made("x", 0.0, "a"))
    check_fields(Made("x"))
    with pytest.raises(InputError, match=message):
        check_fields(Made("x", **values))


@pytest.mark.parametrize(
    "values",
    [{"views": 0}, {"effect_images": 1}, {"effect_passes": -1.0}, {"effect_passes": float("inf")}, {"heads": "some"}],
)
def test_settings_check_their_numbers_and_names(values):
    with pytest.raises(InputError, match=next(iter(values))):
        Settings(**values)


@pytest.mark.parametrize(
    ("rules", "text"),
    [({"ge": 1}, "x>=1"), ({"gt": 0}, "x>0"), ({"lt": 2}, "x<2"), ({"gt": 0, "le": 1}, "0<x<=1")],
)
def test_ranges_read_as_in_mathematics(rules, text):
    assert ranged(rules) == text
