"""Networks that nobody tuned for: traced, at least what a user expects removable, and right after every removal."""

from functools import cache

import pytest
from acceptance_oracle import assert_true, run, under_do
from acceptance_property import assert_comes_back, assert_removable, assert_removal
from removal_property import assert_close, removals
from torch import nn
from wide_attention import WIDE_ATTENTION
from wide_blocks import WIDE_BLOCKS
from wide_channels import WIDE_CHANNELS
from wide_convolutions import WIDE_CONVOLUTIONS
from wide_models import WIDE_MODELS
from wide_statistics import WIDE_STATISTICS
from wide_writing import WIDE_WRITING

from whyprune.errors import TraceError
from whyprune.structure.remove import remove

TABLES = (WIDE_CONVOLUTIONS, WIDE_ATTENTION, WIDE_CHANNELS, WIDE_STATISTICS, WIDE_MODELS, WIDE_WRITING, WIDE_BLOCKS)
WIDE = {name: case for table in TABLES for name, case in table.items()}
MAY_FAIL_TO_TRACE = ("written in parts",)  # a clear error is an answer there
KNOWN = sorted(name for name, case in WIDE.items() if case.reads)


@cache
def _traced(name):
    try:
        return WIDE[name].traced()
    except TraceError:
        if name in MAY_FAIL_TO_TRACE:
            return None
        raise


def traced(name):
    """Each network is traced once; nothing may change it."""
    network = _traced(name)
    if network is None:
        pytest.skip("refused by a clear error, as it may be")
    return network


def test_no_name_is_taken_twice():
    assert len(WIDE) == sum(map(len, TABLES))


@pytest.mark.parametrize("name", WIDE)
def test_what_a_user_expects_can_go(name):
    assert_removable(WIDE[name], traced(name))


@pytest.mark.parametrize("name", WIDE)
def test_every_removal_equals_the_masked_original(name):
    network = traced(name)
    found = removals(network, singles=5)
    assert found
    for units in found:
        assert_removal(WIDE[name], network, units)


@pytest.mark.parametrize("name", KNOWN)
def test_the_hand_written_truth_is_true(name):
    assert_true(WIDE[name].model(), WIDE[name].reads, WIDE[name].draw(2))


@pytest.mark.parametrize("name", KNOWN)
def test_removals_equal_the_original_with_zeros_where_layers_read(name):
    """Units that change statistics are left out, but where the truth names the layers that normalise."""
    case, network = WIDE[name], traced(name)
    normalised = any(isinstance(network.model.get_submodule(r.reader), nn.LayerNorm) for r in case.reads)
    written = {read.bias for read in case.reads}
    judged = [
        unit
        for unit in network.units
        if (normalised or not unit.marks) and any(s.parameter in written for s in unit.slices)
    ]
    assert judged
    for units in ([u] for u in judged):
        expected = run(under_do(network.model, units, case.reads), case.draw(5))
        assert_close(run(remove(network, units), case.draw(5)), expected, case.tolerance)


@pytest.mark.parametrize("name", WIDE)
def test_a_saved_removal_comes_back_on_a_fresh_instance(name, tmp_path):
    network = traced(name)
    assert_comes_back(WIDE[name], network, removals(network, singles=0)[0], tmp_path)
