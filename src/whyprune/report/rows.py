"""What the page tells about each unit, and how it is embedded for the page's table."""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

from whyprune.errors import InputError


@dataclass(frozen=True)
class UnitRow:
    """One unit: what its removal does and saves.

    Attributes:
        group: the group's name.
        unit: the unit's name.
        index: its position within the group.
        effect: E[Y | do(u := v)] - E[Y], in the outcome's own scale; `None` where it was not measured.
        standard_error: of `effect`; `None` for a score without one.
        low: lower end of the 95% interval of `effect`.
        high: upper end.
        samples: images the effect was measured on.
        removed: whether the plan removes it.
        macs: multiply-accumulates saved by removing it alone.
        params: parameters saved.

    Raises:
        InputError: a number is NaN or infinite.
    """

    group: str
    unit: str
    index: int
    effect: float | None
    standard_error: float | None
    low: float | None
    high: float | None
    samples: int
    removed: bool
    macs: int
    params: int

    def __post_init__(self) -> None:
        for name in ("effect", "standard_error", "low", "high"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise InputError(f"{name} of unit {self.unit!r} is {value}: give finite numbers, or None")


COLUMNS = tuple(f.name for f in fields(UnitRow))


def table(rows: Sequence[UnitRow]) -> dict[str, Any]:
    """The rows as JSON values; a group's name is stored once and a row holds its number.

    Returns:
        `groups`: the names, in order of first appearance. `columns`: names of the entries of a row. `rows`:
        one list per unit, its first entry an index into `groups`.
    """
    groups = list(dict.fromkeys(row.group for row in rows))
    number = {name: i for i, name in enumerate(groups)}
    body = [[number[row.group], *astuple(row)[1:]] for row in rows]
    return {"groups": groups, "columns": list(COLUMNS), "rows": body}
