"""A residual block whose units all go hands on what it gets: found by trial, and removed as any unit is."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import build, randomised, traced
from removal_property import assert_close, assert_removal_is_right, fresh_batch, output
from residual_models import Blocks, Bottleneck, Inverted, Peeking, Residual, Tokens, Twice, mixed
from torch import nn

from whyprune.errors import FormatError, InputError
from whyprune.repair import repair
from whyprune.structure.bypass import units_of
from whyprune.structure.capture import capture
from whyprune.structure.memory import peak_memory
from whyprune.structure.network import Network
from whyprune.structure.operation_costs import operation_cost_model, operation_costs
from whyprune.structure.plan import Plan, check_plan, make_plan, replay_plan
from whyprune.structure.remove import remove
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.trace import trace

IMAGE = (3, 8, 8)


@cache
def network(name: str = "mixed") -> Network:
    torch.manual_seed(0)
    model = {"mixed": mixed, "tokens": lambda: randomised(Tokens(), seed=1)}[name]()
    return trace(model, torch.randn(2, *IMAGE))


def found_in(model: nn.Module) -> list[str]:
    return [block.name for block in trace(randomised(model), torch.randn(2, *IMAGE)).blocks]


@st.composite
def removals(draw, name="mixed"):
    """Some blocks as a whole, and up to all but one unit of every other group."""
    net = network(name)
    blocks = draw(st.lists(st.sampled_from(net.blocks), unique=True, min_size=1))
    inside = {g for block in blocks for g in block.groups}
    rest = [g for g in net.groups if g.name not in inside]
    some = [u for g in rest for u in draw(st.permutations(g.units))[: draw(st.integers(0, len(g.units) - 1))]]
    return blocks, [*units_of(net, blocks), *some]


def test_blocks_of_every_kind_are_found():
    assert [b.name for b in network().blocks] == [f"blocks.{k}" for k in range(4)]
    assert [b.name for b in network("tokens").blocks] == ["blocks.0", "blocks.1"]
    named = [b.name for b in traced("resnet20").blocks]
    # the first blocks of the second and third stage change the size of what they get
    assert named == [f"layer{stage}.{k}" for stage in (1, 2, 3) for k in range(3) if (stage, k) not in {(2, 0), (3, 0)}]


def test_what_is_no_identity_is_no_block():
    assert found_in(Blocks(nn.Sequential(nn.Conv2d(6, 5, 1), nn.ReLU(), nn.Conv2d(5, 6, 1)))) == []
    assert found_in(Blocks(Residual(), relu=False)) == []  # negative values do not pass its last ReLU
    assert found_in(Blocks(Inverted(), relu=False)) == ["blocks.0"]
    assert found_in(Twice(Residual())) == []
    assert found_in(Peeking(Residual())) == []
    shared = Residual()
    assert found_in(Blocks(shared, shared)) == []


def test_the_smallest_modules_are_the_blocks():
    assert found_in(Blocks(nn.Sequential(Residual(), Bottleneck()))) == ["blocks.0.0", "blocks.0.1"]


@settings(max_examples=12)
@given(removals())
def test_removal_of_blocks_and_units_is_right(case):
    _, units = case
    assert_removal_is_right(network(), units)


@settings(max_examples=5)
@given(removals("tokens"))
def test_so_it_is_among_tokens(case):
    _, units = case
    assert_removal_is_right(network("tokens"), units)


@settings(max_examples=6)
@given(removals())
def test_nothing_is_left_of_a_block(case):
    blocks, units = case
    pruned = remove(network(), units)
    for block in blocks:
        assert isinstance(pruned.get_submodule(block.name), nn.Identity)
    model = operation_cost_model(network())
    captured = operation_costs(capture(pruned, fresh_batch(network(), count=2)))
    assert sum(x.macs for x in model(units)) == sum(x.macs for x in captured) == network().cost(units).macs


@settings(max_examples=6)
@given(removals())
def test_memory_is_that_of_the_network_without_the_block(case):
    _, units = case
    pruned = remove(network(), units)
    own = trace(pruned, fresh_batch(network(), count=2).args[0])
    found = network().priced([peak_memory(network(), 3)]).cost(units).memory
    assert found == own.priced([peak_memory(own, 3)]).cost().memory


def test_a_group_alone_is_not_emptied_where_its_block_has_another():
    block = network().blocks[1]
    first, second = (network().group(name).units for name in block.groups)
    with pytest.raises(InputError, match="keep at least one"):
        network().select(first)
    assert network().bypassed([*first, *second]) == (block,)


def test_blocks_with_groups_that_stay_or_go_with_others_are_none():
    net = network()
    assert [b.name for b in net.ignoring([net.blocks[1].groups[0]]).blocks] == ["blocks.0", "blocks.2", "blocks.3"]
    model = randomised(Blocks(Residual(inner=6), Residual(inner=6)))
    twins = trace(model, torch.randn(2, *IMAGE))
    inner = [block.groups[0] for block in twins.blocks]
    assert len(inner) == 2
    assert twins.together([inner]).blocks == ()


@settings(max_examples=6)
@given(removals())
def test_a_plan_replayed_is_the_removal(case):
    blocks, units = case
    plan = Plan.model_validate_json(make_plan(network(), units).model_dump_json())
    assert set(plan.blocks) == {b.name for b in blocks}
    check_plan(network(), plan)
    batch = fresh_batch(network())
    assert_close(output(replay_plan(mixed(), plan), batch), output(remove(network(), units), batch))


@pytest.mark.parametrize("blocks", [("nowhere",), ("",), ("blocks", "blocks.0"), ("blocks.0", "blocks.0")])
def test_a_plan_that_bypasses_no_module_is_refused(blocks):
    plan = make_plan(network(), units_of(network(), network().blocks[:1]))
    with pytest.raises(FormatError, match="is no module of its own"):
        replay_plan(mixed(), plan.model_copy(update={"blocks": blocks}))


@pytest.mark.parametrize("blocks", [(), ("blocks.1",), ("blocks.0", "blocks.1"), ("stem",), ("head",)])
def test_a_plan_that_bypasses_other_modules_than_it_says_is_refused(blocks):
    plan = make_plan(network(), units_of(network(), network().blocks[:1])).model_copy(update={"blocks": blocks})

    def carried_out():
        replay_plan(mixed(), plan)
        check_plan(network(), plan)

    with pytest.raises(FormatError):
        carried_out()


def test_the_replay_of_a_network_without_blocks_can_be_resumed_anywhere():
    net = network()
    units = net.select([*units_of(net, [net.blocks[0], net.blocks[2]]), *net.group("stem.0").units[:2]])
    replay, batch = Replay(net, remove(net, units), units), fresh_batch(net)
    expected = replay.logits(batch)
    for node in replay.order:
        steps = replay.behind({node})
        values = replay.run(batch, keep=replay.frontier(steps))
        assert torch.equal(replay.resume(values, steps), expected)


def test_repair_mends_what_a_missing_block_does():
    """The blocks that follow take over: the outputs come nearer to the dense network's on other images."""
    model = build("resnet20")
    net = trace(model, torch.randn(2, 3, 32, 32))
    units = units_of(net, [net.blocks[1], net.blocks[4]])
    pruned = remove(net, units)
    repaired = repair(State(net, pruned, units), [fresh_batch(net, count=64, seed=1)]).model
    batch = fresh_batch(net, count=32, seed=2)
    dense, before, after = (output(m, batch) for m in (model, pruned, repaired))
    assert float((after - dense).square().mean()) < 0.7 * float((before - dense).square().mean())
    assert_close(Replay(net, repaired, net.select(units)).logits(batch), after, 1e-4)
    assert np.isfinite(after.numpy()).all()
