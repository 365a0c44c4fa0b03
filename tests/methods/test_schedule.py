"""Schedules: how many rounds, what each aims at, and how they are written."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whyprune.allocation import Budget
from whyprune.errors import InputError
from whyprune.methods import Schedule, method_named
from whyprune.pipeline.settings import Settings
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
@pytest.mark.parametrize(
    "text", ["one-shot", "linear:5", "geometric", "geometric:1.25", "exponential:3", "cubic", "cubic:7"]
)
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
    for text in ("one-shot", "linear:3", "geometric:1.5", "exponential:30", "cubic:6", "backward:2"):
        assert str(Schedule.parse(text)) == text
    kept = Schedule.parse("geometric:3", Schedule("cubic", certain=True))
    assert (kept.step, kept.certain) == (3.0, True)


@pytest.mark.parametrize(
    "bad",
    ["quadratic", "linear:0", "backward:no", "geometric:fast", "geometric:1", "cubic:0", "cubic:2.5", "one-shot:2"],
)
def test_what_is_no_schedule_is_refused(bad):
    with pytest.raises(InputError, match="schedule"):
        Schedule.parse(bad)


def test_linear_rounds_save_equally_much():
    found = costs(Schedule("linear", rounds=4), Budget(macs=0.2))
    assert found == pytest.approx([800_000, 600_000, 400_000, 200_000], rel=1e-4)


@pytest.mark.parametrize("ratio", [0.5, 0.125, 0.3])
def test_exponential_rounds_are_geometric_ones_told_by_their_number(ratio):
    found = costs(Schedule("exponential", rounds=3), Budget(macs=ratio))
    assert found == pytest.approx([1e6 * ratio ** (t / 3) for t in (1, 2, 3)], rel=1e-4)
    assert found == costs(Schedule("geometric", step=ratio ** (-1 / 3)), Budget(macs=ratio))


@settings(max_examples=40)
@given(
    kind=st.sampled_from(["linear", "exponential", "cubic", "geometric"]),
    rounds=st.integers(1, 12),
    step=st.floats(1.05, 4),
    ratios=st.tuples(st.floats(0.02, 1.0), st.floats(0.02, 1.0)),
    beyond=st.lists(st.floats(0.8, 1.0), min_size=12, max_size=12),
)
def test_targets_fall_and_end_at_every_bound_wherever_rounds_end(kind, rounds, step, ratios, beyond):
    """Rounds go further than they are asked to, each by a factor `beyond`: no target is above what is left."""
    schedule, budget = Schedule(kind, rounds=rounds, step=step), Budget(macs=ratios[0], params=ratios[1])
    now, count = DENSE, schedule.count(budget, DENSE)
    for number in range(count):
        target = schedule.target(budget, DENSE, now, number, count)
        limits = target.limits(DENSE)
        for kind_of_cost, limit in limits.items():
            left = getattr(now, kind_of_cost)
            least = min(budget.limits(DENSE)[kind_of_cost], left)
            assert least * (1 - 1e-9) <= limit <= left * (1 + 1e-9)
        factor = beyond[number % 12] if number + 1 < count else 1.0
        now = Cost(bytes=40_000, **{k: max(int(v * factor), 1) for k, v in limits.items()})
    assert budget.met_by(now, DENSE)


@given(groups=st.integers(1, 30), rounds=st.integers(1, 40))
def test_backward_goes_through_all_groups_from_the_last_to_the_first_in_parts_of_equal_size(groups, rounds):
    parts = Schedule("backward", rounds=rounds).parts(range(groups))
    assert [group for part in parts for group in part] == list(range(groups))[::-1]
    assert len(parts) == min(groups, rounds)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_training_between_rounds_is_asked_for_on_top_of_any_schedule():
    budget = Budget(macs=0.5)
    found = Settings(schedule="linear:3", recover_between=2).applied("taylor", budget).schedule
    assert (str(found), found.recovery_epochs) == ("linear:3", 2)
    tuned = replace(method_named("taylor"), schedule=Schedule("linear", recovery_epochs=3))
    assert Settings().applied(tuned, budget).schedule.recovery_epochs == 3
    assert Settings(schedule="cubic:2").applied(tuned, budget).schedule.recovery_epochs == 3
    assert Settings(schedule="one-shot").applied(tuned, budget).schedule.recovery_epochs == 0
    assert Settings(recover_between=0).applied(tuned, budget).schedule.recovery_epochs == 0
    with pytest.raises(InputError, match="no rounds to train between"):
        Settings(recover_between=1).applied("taylor", budget)


@pytest.mark.parametrize("bad", [-1, True, "2", float("nan")])
def test_epochs_between_rounds_are_a_number(bad):
    with pytest.raises(InputError, match="recover_between"):
        Settings(recover_between=bad)


def test_whole_blocks_and_a_schedule_by_groups_are_refused_together():
    with pytest.raises(InputError, match="group by group"):
        Settings(schedule="backward:2", blocks=True).applied("causal", Budget(macs=0.5))
    assert Settings(schedule="backward:2").applied("causal", Budget(latency=0.5)).kinds == ("width",)
