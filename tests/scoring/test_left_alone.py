"""Checks of contracts tell what was done to the network, and leave it as it was for the next one."""

import pytest
import torch

from whyprune.allocation import ALLOCATORS, Budget, allocate
from whyprune.errors import InputError
from whyprune.scoring.contract import Question, scorer
from whyprune.scoring.registry import SCORERS
from whyprune.structure.state import State
from whyprune.testing import check_allocator, check_scorer, planted
from whyprune.testing.allocators import made_up_effects, small_network

NORM = SCORERS("magnitude-l2")


def writes(state):
    with torch.no_grad():
        next(state.model.parameters()).add_(1.0)


def trains(state):
    state.model.train()


def grows(state):
    for p in state.model.parameters():
        p.grad = torch.ones_like(p)


@pytest.mark.parametrize(
    ("deed", "said"),
    [(writes, r"units\.weight was changed"), (trains, "left in another mode"), (grows, "gradients were left")],
)
def test_a_scorer_that_changes_the_network_is_told_and_the_next_one_finds_it_as_it_was(deed, said):
    def meddles(state, batches, question):
        deed(state)
        return NORM(state, batches, question)

    model = planted.case(1, 96).network.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(AssertionError, match=said):
        check_scorer(meddles, question=Question())
    assert not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_names_are_checked_and_what_is_nothing_to_call_is_refused():
    check_scorer("magnitude-l2")
    for check in (check_scorer, check_allocator):
        with pytest.raises(InputError, match="3 is no"):
            check(3)


def test_facts_that_no_table_knows_are_refused():
    with pytest.raises(InputError, match="no scaling named 'same': choose from invariant, proportional, dependent"):
        scorer("mine", kind="criterion", summary="", estimand="", cost="", guarantee="", scaling="same")(NORM)


def nothing(point):
    return None


def in_halves(point):
    return {name: stop + 0.5 for name, stop in point.items()}


@pytest.mark.parametrize(("answer", "said"), [(nothing, "it gave NoneType"), (in_halves, "whole number")])
def test_what_is_no_point_is_told_by_the_check_and_refused_in_use(answer, said):
    def mine(space, objective, budget, *, seed=0, progress=False):
        return answer(ALLOCATORS("uniform")(space, objective, budget, seed=seed))

    with pytest.raises(AssertionError, match=said):
        check_allocator(mine)
    state = State.of(small_network())
    with pytest.raises(InputError, match="the allocation 'mine' gave"):
        allocate(state, made_up_effects(state), Budget(macs=0.7), allocation=mine)
