"""Positions on the axes: order kept, nothing lost, nothing outside the box."""

import itertools
import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_run import groups_of, unit_rows

from whyprune.report import charts
from whyprune.results import JointEffect

effects = st.lists(st.floats(-1e300, 1e300, allow_nan=False), min_size=0, max_size=30)


@given(values=effects)
def test_the_axis_keeps_the_order_of_effects_and_stays_inside(values):
    axis = charts.effect_axis(values)
    at = [axis.at(v) for v in sorted([*values, 0.0])]
    assert at == sorted(at)
    assert all(0 <= a <= 100 for a in at)


@given(values=effects)
def test_ticks_stand_where_their_values_are_and_can_be_read(values):
    axis = charts.effect_axis(values)
    ticks = axis.ticks()
    assert "0" in [tick.label for tick in ticks]
    gaps = [b.at - a.at for a, b in itertools.pairwise(ticks)]
    assert all(gap >= charts.MIN_SPACING for gap in gaps)
    for tick in ticks:
        if re.fullmatch(r"−?[0-9.]+", tick.label):
            assert tick.at == pytest.approx(axis.at(float(tick.label.replace("−", "-"))))


def test_the_axis_is_linear_near_zero_and_logarithmic_far_away():
    axis = charts.SymlogAxis(-1e4, 1e4, 1.0)
    assert axis.at(0) == 50
    assert axis.at(-7.0) == pytest.approx(100 - axis.at(7.0))
    assert axis.at(2e-6) - 50 == pytest.approx(2 * (axis.at(1e-6) - 50), rel=1e-4)
    assert axis.at(1e4) - axis.at(1e3) == pytest.approx(axis.at(1e3) - axis.at(1e2), rel=0.02)


def test_every_unit_has_one_stroke_in_its_own_strip():
    rows = unit_rows()
    strips = charts.strips(rows, charts.effect_axis([r.effect for r in rows]))
    assert [s.group for s in strips] == list(dict.fromkeys(r.group for r in rows))
    for strip in strips:
        members = [r for r in rows if r.group == strip.group]
        assert strip.removed.count("M") == sum(r.removed for r in members)
        assert strip.kept.count("M") == sum(not r.removed for r in members)
        assert all(0 <= int(x) <= charts.BOX for x in re.findall(r"M(\d+) ", strip.kept + strip.removed))


def test_width_bars_share_one_scale():
    groups = groups_of(unit_rows())
    bars = charts.width_bars(groups)
    assert max(b.kept_percent + b.removed_percent for b in bars) == pytest.approx(100)
    for bar, group in zip(bars, groups, strict=True):
        assert bar.kept_percent == pytest.approx(100 * group.kept / 64)
        assert bar.kept_percent + bar.removed_percent == pytest.approx(100 * group.width / 64)
    assert charts.width_bars([SimpleNamespace(width=0, kept=0)])[0].kept_percent == 0


@given(
    predicted=st.none() | st.floats(-10, 10),
    measured=st.floats(-10, 10),
    below=st.floats(0, 5),
    above=st.floats(0, 5),
)
def test_joint_marks_keep_the_order_of_their_values(predicted, measured, below, above):
    interval = (measured - below, measured + above)
    joint = JointEffect(outcome="Y", predicted=predicted, measured=measured, interval=interval, images=1)
    marks = charts.joint_marks(joint)
    assert marks.low <= marks.measured <= marks.high
    pairs = [
        (0.0, marks.zero),
        (measured, marks.measured),
        (interval[0], marks.low),
        (interval[1], marks.high),
    ]
    pairs += [] if predicted is None else [(predicted, marks.predicted)]
    at = [a for _, a in sorted(pairs)]
    assert all(a <= b + 1e-6 for a, b in itertools.pairwise(at))
    assert all(0 <= a <= 100 for a in at)
