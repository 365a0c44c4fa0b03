"""Geometry of the pictures: positions in percent of a row's width, paths in a box of 1000 by 24.

Each row of a picture is a small SVG stretched to the width of its table cell, so that the same page reads on
a phone and on paper; strokes do not scale, and text stays text.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from whyprune.report.rows import UnitRow
from whyprune.report.words import raised
from whyprune.results import GroupSummary, JointEffect

BOX = 1000
DECADES = 4
MIN_SPACING = 9.0
TINY = 1e-290


@dataclass(frozen=True)
class Tick:
    """A labelled position, in percent of the axis."""

    label: str
    at: float


@dataclass(frozen=True)
class SymlogAxis:
    """Logarithmic in both directions, linear within `linear` of zero: sign(x) log10(1 + |x| / linear)."""

    low: float
    high: float
    linear: float

    def at(self, value: float) -> float:
        """The value's position in percent, between 0 and 100."""
        start, end = self._bend(self.low), self._bend(self.high)
        return min(100.0, max(0.0, 100 * (self._bend(value) - start) / (end - start)))

    def ticks(self) -> list[Tick]:
        """Zero and powers of ten, far enough apart to read."""
        top = max(abs(self.low), abs(self.high))
        powers = range(math.floor(math.log10(top)), round(math.log10(self.linear)) - 1, -1)
        sizes = [10.0**power for power in powers]
        values = [0.0, *sizes, *(-size for size in sizes)]
        return _spread([v for v in values if self.low <= v <= self.high], self)

    def _bend(self, value: float) -> float:
        return math.copysign(math.log10(1 + abs(value) / self.linear), value)


@dataclass(frozen=True)
class Strip:
    """One group's effects: `kept` and `removed` are SVG paths, one stroke per unit."""

    group: str
    kept: str
    removed: str
    label: str


@dataclass(frozen=True)
class WidthBar:
    """One group's width: its kept and removed parts in percent of the widest group."""

    summary: GroupSummary
    kept_percent: float
    removed_percent: float


@dataclass(frozen=True)
class JointMarks:
    """Positions of the predicted and the measured joint effect, in percent."""

    zero: float
    measured: float
    low: float
    high: float
    predicted: float | None


def effect_axis(values: Sequence[float]) -> SymlogAxis:
    """An axis over all values and zero; values `DECADES` decades below the largest lie near zero."""
    sizes = sorted(abs(v) for v in values if abs(v) > TINY)
    if not sizes:
        return SymlogAxis(-1.0, 1.0, 1.0)
    small = max(sizes[len(sizes) // 20], sizes[-1] * 10.0**-DECADES)
    linear = 10.0 ** math.floor(math.log10(small))
    return SymlogAxis(min(0.0, *values), max(0.0, *values), linear)


def strips(rows: Sequence[UnitRow], axis: SymlogAxis) -> list[Strip]:
    """One strip per group, in order of first appearance."""
    groups: dict[str, list[UnitRow]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return [_strip(name, members, axis) for name, members in groups.items()]


def width_bars(groups: Sequence[GroupSummary]) -> list[WidthBar]:
    """One bar per group, on one scale."""
    widest = max((max(g.width, g.kept) for g in groups), default=0) or 1
    return [WidthBar(g, 100 * g.kept / widest, 100 * (g.width - g.kept) / widest) for g in groups]


def joint_marks(joint: JointEffect) -> JointMarks:
    """Both effects and the interval on one linear axis that holds zero."""
    shown = [0.0, joint.measured, *joint.interval]
    shown += [] if joint.predicted is None else [joint.predicted]
    low, high = min(shown), max(shown)
    span = (high - low) or 1.0

    def at(value: float) -> float:
        return 3 + 94 * ((value - low) / span)

    predicted = None if joint.predicted is None else at(joint.predicted)
    return JointMarks(at(0.0), at(joint.measured), at(joint.interval[0]), at(joint.interval[1]), predicted)


def _strip(group: str, rows: Sequence[UnitRow], axis: SymlogAxis) -> Strip:
    """Units whose effect was not measured are not drawn, and counted in the label."""
    known = [(r.removed, r.effect) for r in rows if r.effect is not None]

    def position(effect: float) -> int:
        return round(axis.at(effect) * BOX / 100)

    kept = "".join(f"M{position(effect)} 2v9" for removed, effect in known if not removed)
    removed = "".join(f"M{position(effect)} 18h0" for removed, effect in known if removed)
    effects = [effect for _, effect in known]
    said = f"effects from {min(effects):.3g} to {max(effects):.3g}" if effects else "no effect measured"
    missing = len(rows) - len(known)
    label = f"{group}: {said}, {sum(r.removed for r in rows)} of {len(rows)} removed"
    return Strip(group, kept, removed, label + (f", {missing} not measured" if missing else ""))


def _spread(values: Sequence[float], axis: SymlogAxis) -> list[Tick]:
    """The values as ticks, the first ones first, without those too close to an earlier one."""
    ticks: list[Tick] = []
    for value in values:
        at = axis.at(value)
        if all(abs(at - tick.at) >= MIN_SPACING for tick in ticks):
            ticks.append(Tick(_label(value), at))
    return sorted(ticks, key=lambda tick: tick.at)


def _label(value: float) -> str:
    if value == 0:
        return "0"
    power = round(math.log10(abs(value)))
    sign = "−" if value < 0 else ""
    return f"{sign}{10.0**power:g}" if -2 <= power <= 3 else f"{sign}10{raised(power)}"
