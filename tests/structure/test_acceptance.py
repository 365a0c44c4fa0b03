"""26 of 26: what must go can go, removals equal the original under do(removed := 0), and the checks can fail."""

from functools import cache

import pytest
import torch
from acceptance import ACCEPTANCE
from acceptance_oracle import assert_true, run, under_do
from acceptance_property import assert_comes_back, assert_removable, assert_removal
from removal_property import assert_close, removals

from whyprune.structure.remove import masked, remove
from whyprune.structure.units import removed_indices

KNOWN = sorted(name for name, case in ACCEPTANCE.items() if case.reads)
PLANTED = ["residual", "concat", "chunk glu", "grouped", "flatten", "pixel shuffle", "channel pad", "channel shuffle"]


@cache
def traced(name):
    """Each network is traced once; nothing may change it."""
    return ACCEPTANCE[name].traced()


def half(network):
    return [unit for group in network.groups for unit in group.units[: len(group.units) // 2]]


def test_the_list_is_complete():
    assert len(ACCEPTANCE) == 26
    assert len(KNOWN) >= 24


@pytest.mark.parametrize("name", ACCEPTANCE)
def test_what_must_go_can_go(name):
    assert_removable(ACCEPTANCE[name], traced(name))


@pytest.mark.parametrize("name", ACCEPTANCE)
def test_every_removal_equals_the_masked_original(name):
    network = traced(name)
    found = removals(network, singles=6)
    assert found
    for units in found:
        assert_removal(ACCEPTANCE[name], network, units)


@pytest.mark.parametrize("name", KNOWN)
def test_every_removal_equals_the_original_with_zeros_where_layers_read(name):
    """An oracle that does not know `masked`: it zeroes the channels by hand-written truth about each network."""
    case, network = ACCEPTANCE[name], traced(name)
    found = removals(network, singles=len(network.units), seed=3)
    assert found
    for units in found:
        expected = run(under_do(network.model, units, case.reads), case.draw(5))
        assert_close(run(remove(network, units), case.draw(5)), expected, case.tolerance)


@pytest.mark.parametrize("name", ACCEPTANCE)
def test_a_saved_removal_comes_back_on_a_fresh_instance(name, tmp_path):
    network = traced(name)
    for number, units in enumerate(removals(network, singles=1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert_comes_back(ACCEPTANCE[name], network, units, folder)


def test_the_branch_that_runs_is_the_branch_that_is_pruned():
    """The layer of the other branch is neither removed nor counted as removable."""
    network = traced("branch")
    pruned = remove(network, half(network))
    for one, other in zip(pruned.dark.parameters(), network.model.dark.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", KNOWN)
def test_the_hand_written_truth_is_true(name):
    case = ACCEPTANCE[name]
    assert_true(case.model(), case.reads, case.draw(2))


# The checks themselves: they must fail on a network that is cut wrong


def wrong_cuts(network, units):
    """The pruned network, each time with one axis of one parameter cut at one wrong index."""
    state = dict(network.model.named_parameters()) | dict(network.model.named_buffers())
    gone = removed_indices(units)
    for key, indices in gone.items():
        pruned, tensor = remove(network, units), state[key[0]].detach()
        stays = min(set(range(tensor.shape[key[1]])) - set(indices.tolist()))
        for axis in range(tensor.dim()):
            out = set(gone.get((key[0], axis), []))
            if axis == key[1]:
                out = out - {min(out)} | {stays}
            tensor = tensor.index_select(axis, torch.tensor(sorted(set(range(tensor.shape[axis])) - out)))
        (dict(pruned.named_parameters()) | dict(pruned.named_buffers()))[key[0]].data = tensor
        yield key, pruned


def differs(found, expected, tolerance):
    try:
        assert_close(found, expected, tolerance)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("name", PLANTED)
def test_one_wrong_index_anywhere_is_seen_by_both_references(name):
    case, network = ACCEPTANCE[name], traced(name)
    units = half(network)
    inputs = case.draw(5)
    references = [
        run(masked(network, units), inputs),
        run(under_do(network.model, units, case.reads), inputs),
    ]
    planted = list(wrong_cuts(network, units))
    assert len(planted) >= 4
    for key, pruned in planted:
        found = run(pruned, inputs)
        assert [differs(found, reference, case.tolerance) for reference in references] == [True, True], key


@pytest.mark.parametrize("name", KNOWN)
def test_the_references_tell_removals_apart(name):
    """Removing nothing, or one unit of a group in place of another one, is not taken for right."""
    case, network = ACCEPTANCE[name], traced(name)
    inputs = case.draw(5)
    dense = run(network.model, inputs)
    for group in network.groups:
        first, last = group.units[0], group.units[-1]
        expected = run(under_do(network.model, [first], case.reads), inputs)
        assert differs(dense, expected, case.tolerance), first
        if first is not last:
            assert differs(run(remove(network, [last]), inputs), expected, case.tolerance), group


def test_a_promise_that_does_not_hold_is_seen():
    """The size that the cost model promises is checked, so is that nothing stays behind."""
    case, network = ACCEPTANCE["residual"], traced("residual")
    with pytest.raises(AssertionError):
        assert_removal(case, network, [])
