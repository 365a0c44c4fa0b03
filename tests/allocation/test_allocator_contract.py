"""`check_allocator` tells an allocator that minds the order of channels, the unit of effects, or says too little."""

import pytest

from whyprune.allocation import ALLOCATORS, Budget
from whyprune.errors import BudgetError
from whyprune.testing import check_allocator


def uniform_unless(other):
    """`uniform`, but `global` where `other` says so."""

    def chosen(space, objective, budget, *, seed=0, progress=False):
        name = "global" if other(objective, budget) else "uniform"
        return ALLOCATORS(name)(space, objective, budget, seed=seed)

    return chosen


def test_an_allocator_that_minds_the_order_of_channels_is_told():
    by_name = uniform_unless(lambda objective, _: objective.orders["stem"][0] == "stem:2")  # stem:3 in the first order
    with pytest.raises(AssertionError, match="channels in another order got other widths"):
        check_allocator(by_name)


def test_an_allocator_that_minds_the_unit_of_effects_is_told():
    by_size = uniform_unless(lambda objective, _: 0.1 < objective.height("inner.1", 1) < 0.2)  # 0.037, times 4
    with pytest.raises(AssertionError, match="effects times one factor gave another point"):
        check_allocator(by_size)


@pytest.mark.parametrize("kind", ["macs", "params"])
def test_an_allocator_that_does_not_say_what_can_be_reached_is_told(kind):
    def mute(objective, budget):
        if budget == Budget(**{kind: 1e-6}):
            raise BudgetError("impossible")

    with pytest.raises(AssertionError, match="ended in 'impossible'"):
        check_allocator(uniform_unless(mute))
