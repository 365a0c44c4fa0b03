import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whyprune.allocation import Budget
from whyprune.errors import InputError
from whyprune.structure.cost import Cost

DENSE = Cost(macs=1000, params=200, bytes=800)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("macs=0.5", Budget(macs=0.5)),
        (" params = 0.25".replace(" = ", "="), Budget(params=0.25)),
        ("macs=0.5, bytes=4e6", Budget(macs=0.5, bytes=4e6)),
        ("bytes=1,params=2,macs=3", Budget(3, 2, 1)),
        ("latency=0.5", Budget(latency=0.5)),
        ("latency=2.5,memory=4e6,energy=0.25", Budget(latency=2.5, memory=4e6, energy=0.25)),
    ],
)
def test_budgets_are_read_from_text(text, expected):
    assert Budget.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "macs", "0.5", "flops=0.5", "macs=", "macs=half", "macs=0", "macs=-1", "macs=nan", "macs=inf"]
)
def test_text_that_is_no_budget_is_refused(text):
    with pytest.raises(InputError, match="budget"):
        Budget.parse(text)


def test_a_bound_given_twice_is_refused():
    with pytest.raises(InputError, match="macs is given twice"):
        Budget.parse("macs=0.5,macs=0.4")


@pytest.mark.parametrize("bad", [0, -0.5, math.nan, math.inf])
def test_bounds_are_positive_numbers(bad):
    with pytest.raises(InputError, match="params"):
        Budget(params=bad)
    with pytest.raises(InputError, match="empty"):
        Budget()


def test_numbers_up_to_one_are_ratios_and_larger_ones_absolute():
    assert Budget(macs=0.5, params=1, bytes=700).limits(DENSE) == {"macs": 500, "params": 200, "bytes": 700}


def test_all_bounds_must_hold():
    budget = Budget(macs=0.5, params=100)
    assert budget.met_by(Cost(500, 100, 800), DENSE)
    assert not budget.met_by(Cost(501, 100, 1), DENSE)
    assert not budget.met_by(Cost(1, 101, 1), DENSE)


KINDS = st.sampled_from(["macs", "params", "bytes"])
BOUNDS = st.one_of(st.floats(0.01, 1), st.floats(2, 2000))


@given(bounds=st.dictionaries(KINDS, BOUNDS, min_size=1))
def test_the_way_to_a_budget_ends_at_it_and_text_comes_back(bounds):
    budget = Budget(**bounds)
    limits = budget.limits(DENSE)
    end = budget.between(DENSE, DENSE, 1).limits(DENSE)
    for kind, limit in limits.items():
        assert end[kind] == pytest.approx(min(limit, getattr(DENSE, kind)))
    rounded = Budget.parse(str(budget)).as_dict()
    assert rounded == {kind: pytest.approx(value, rel=1e-5) for kind, value in budget.as_dict().items()}


def test_half_of_the_way_is_the_same_ratio_twice():
    """From 1000 to 250: 500 on the way; a bound that holds already stays as it is."""
    half = Budget(macs=0.25, params=300).between(DENSE, DENSE, 0.5).limits(DENSE)
    assert half == {"macs": pytest.approx(500), "params": pytest.approx(200)}
    rest = Budget(macs=0.25).between(DENSE, Cost(500, 100, 400), 0.5).limits(DENSE)
    assert rest == {"macs": pytest.approx(math.sqrt(500 * 250))}


@pytest.mark.parametrize("kind", ["latency", "energy", "memory"])
def test_what_the_network_is_not_priced_for_is_no_silent_pass(kind):
    with pytest.raises(InputError, match=f"{kind}=0.5"):
        Budget(**{kind: 0.5}).met_by(DENSE, DENSE)


def test_priced_kinds_have_ratios_and_absolute_numbers_too():
    dense = Cost(1000, 200, 800, latency=4.0, memory=5000, energy=8.0)
    budget = Budget(macs=0.5, latency=0.5, memory=4000, energy=2)
    assert budget.limits(dense) == {"macs": 500, "latency": 2.0, "memory": 4000, "energy": 2}
    assert budget.on_device == {"latency": 0.5, "energy": 2}
    assert budget.met_by(Cost(500, 1, 1, latency=2.0, memory=4000, energy=2.0), dense)
    assert not budget.met_by(Cost(500, 1, 1, latency=2.01, memory=4000, energy=2.0), dense)
    half = budget.between(dense, dense, 0.5)
    assert half.limits(dense)["latency"] == pytest.approx(4 * 0.5**0.5)
