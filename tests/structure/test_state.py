"""A state is a network and a module that lacks exactly the units it says: what is said wrongly is refused."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from structure.networks import traced
from structure.removal_property import fresh_batch
from whyprune.effects.joint import joint_effect
from whyprune.errors import InputError
from whyprune.repair import repair
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace
from whyprune.structure.verify import verify

NAMES = ["residual", "projection", "pad shortcut", "separable", "grouped", "concat", "vgg"]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999))
def test_steps_of_removal_are_one_removal(name, seed):
    network, rng = traced(name), random.Random(seed)
    units = [u for g in network.groups for u in rng.sample(g.units, rng.randrange(len(g.units)))]
    first = rng.sample(units, rng.randrange(len(units) + 1))
    stepwise = remove(remove(State.of(network), first), units)
    for one, two in zip(
        stepwise.model.state_dict().values(), remove(network, units).state_dict().values(), strict=True
    ):
        assert torch.equal(one, two)
    assert set(stepwise.removed) == set(units)
    assert set(stepwise.units) == set(network.units) - set(units)
    assert remove(stepwise, []).removed == stepwise.removed


def test_a_module_of_other_sizes_is_refused():
    network = traced("residual")
    units = [g.units[0] for g in network.groups]
    with pytest.raises(InputError, match=r"has the shape .*, not .*remove\(state, units\)"):
        State(network, remove(network, units), tuple(units[1:]))


@pytest.fixture(scope="module")
def trained():
    return trace(tiny.trained(), tiny.digits()[0][:2])


def chosen(network, seed, share=0.4):
    rng = random.Random(seed)
    return [u for g in network.groups for u in rng.sample(g.units, int(share * len(g.units)))]


def images(first, last):
    return [tiny.digits()[0][first:last]]


@pytest.mark.parametrize("mended", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_other_units_of_the_same_numbers_are_refused_also_after_a_repair(trained, seed, mended):
    """What a repair with other units does is silent and costs accuracy: such a state cannot be made."""
    right = remove(State.of(trained), chosen(trained, seed))
    right = repair(right, images(0, 200)) if mended else right
    wrong = chosen(trained, seed + 100)
    assert set(wrong) != set(right.removed)
    with pytest.raises(InputError, match="are those of other units"):
        State(trained, right.model, tuple(wrong))
    again = State(trained, right.model, right.removed)
    assert joint_effect(again, images(200, 300)).mean == joint_effect(right, images(200, 300)).mean


def test_a_module_that_was_trained_anew_is_taken_as_it_is_said(trained):
    """Nothing of the original is left in it: then channels cannot tell, and nothing is refused."""
    state = remove(State.of(trained), chosen(trained, 3))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        for parameter in state.model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    for seed in range(5):
        State(trained, state.model, tuple(chosen(trained, seed)))


def test_copies_of_one_channel_are_no_reason_to_refuse(trained):
    model = tiny.Tiny().eval()
    with torch.no_grad():
        model.stem[0].weight.copy_(model.stem[0].weight[:1].expand(8, -1, -1, -1))
    network = trace(model, tiny.digits()[0][:2])
    group = network.group("stem.0")
    State(network, remove(network, group.units[:3]), group.units[2:5])


def test_a_state_is_verified_as_its_parts_are(trained):
    state = remove(State.of(trained), chosen(trained, 0))
    assert verify(state) == verify(trained, state.model, state.removed)
    batch = fresh_batch(trained, count=4)
    assert verify(state, [batch], stress=False).inputs == 4


def test_a_state_says_what_it_is(trained):
    state = remove(State.of(trained), chosen(trained, 0))
    assert State.of(state) is state
    assert state.dense.is_dense
    assert not state.is_dense
    assert repr(state) == f"State(Tiny: {len(state.removed)} of {len(trained.units)} units are removed)"
    with pytest.raises(InputError, match="no unit named 'nobody'"):
        state.select(["nobody"])
