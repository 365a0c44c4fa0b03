"""Schedules: how many rounds, what each aims at, and how they are written."""

import pytest

from whyprune.allocation import Budget
from whyprune.errors import InputError
from whyprune.methods import Schedule
from whyprune.structure.cost import Cost

DENSE = Cost(macs=1_000_000, params=10_000, bytes=40_000)


def costs(schedule, budget):
    """The MACs that rounds end at if each meets its target exactly."""
    now, count, found = DENSE, schedule.count(budget, DENSE), []
    for number in range(count):
        target = schedule.target(budget, DENSE, now, number, count)
        now = Cost(**{k: int(v) for k, v in target.limits(DENSE).items()}, params=10_000, bytes=40_000)
        found.append(now.macs)
    return found


@pytest.mark.parametrize("ratio", [0.6, 0.5, 0.25, 0.1])
@pytest.mark.parametrize("text", ["one-shot", "geometric", "geometric:1.25", "cubic", "cubic:7"])
def test_rounds_end_at_the_budget_and_get_cheaper_each_time(text, ratio):
    found = costs(Schedule.parse(text), Budget(macs=ratio))
    assert found[-1] == pytest.approx(ratio * DENSE.macs, rel=1e-4)
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == len(found)


def test_geometric_rounds_take_equal_factors():
    found = costs(Schedule("geometric", step=2.0), Budget(macs=0.125))
    assert found == pytest.approx([500_000, 250_000, 125_000], rel=1e-4)


def test_cubic_rounds_follow_the_formula():
    """1 - (1 - r) (1 - (1 - t / n)^3) for r = 0.2, n = 4, worked out by hand."""
    found = costs(Schedule("cubic", rounds=4), Budget(macs=0.2))
    assert found == pytest.approx([537_500, 300_000, 212_500, 200_000], rel=1e-4)


def test_a_schedule_is_read_as_it_is_written():
    for text in ("one-shot", "geometric:1.5", "cubic:6"):
        assert str(Schedule.parse(text)) == text
    kept = Schedule.parse("geometric:3", Schedule("cubic", certain=True))
    assert (kept.step, kept.certain) == (3.0, True)


@pytest.mark.parametrize("bad", ["linear", "geometric:fast", "geometric:1", "cubic:0", "cubic:2.5", "one-shot:2"])
def test_what_is_no_schedule_is_refused(bad):
    with pytest.raises(InputError, match="schedule"):
        Schedule.parse(bad)
