"""A replay computes what the model computes, from any place on, with any edit."""

import random

import pytest
import torch
from networks import CASES, build, randomised, traced, vector
from random_tokens import Prepended
from removal_property import assert_close, fresh_batch, output, removals
from torch import Tensor, nn

from whyprune.data.batches import Batch
from whyprune.data.outputs import logits_of
from whyprune.errors import InputError
from whyprune.models import BUILT_INS
from whyprune.structure.remove import masked, remove
from whyprune.structure.replay import Replay
from whyprune.structure.trace import trace


@pytest.mark.parametrize("name", [*CASES, *BUILT_INS])
def test_a_replay_gives_the_models_logits(name):
    network, batch = traced(name), fresh_batch(traced(name))
    tolerance = 1e-4 if name in BUILT_INS else 1e-5
    assert_close(Replay(network).logits(batch), network.outputs.rows_of(output(network.model, batch)), tolerance)


@pytest.mark.parametrize("name", ["mlp", "concat", "separable", "two inputs"])
def test_other_weights_can_be_bound(name):
    batch, other = fresh_batch(traced(name)), build(name, seed=5)
    assert_close(Replay(traced(name), other).logits(batch), logits_of(output(other, batch)))


def test_the_order_of_keyword_inputs_does_not_matter():
    network = traced("dicts")
    batch = fresh_batch(network)
    turned = Batch((), dict(reversed(batch.kwargs.items())))
    assert list(turned.kwargs) != list(batch.kwargs)
    assert torch.equal(Replay(network).logits(turned), Replay(network).logits(batch))


@pytest.mark.parametrize("batch", [Batch((), {"image": vector(5)}), Batch((vector(5),), {})])
def test_other_inputs_than_the_traced_are_refused(batch):
    with pytest.raises(InputError, match=r"traced with 0 and \['image', 'vector'\]"):
        Replay(traced("dicts")).logits(batch)


@pytest.mark.parametrize("name", ["residual", "concat", "layer scale", "shared conv", "pre-activation"])
def test_a_run_can_be_resumed_before_every_reader(name):
    network, batch = traced(name), fresh_batch(traced(name))
    replay = Replay(network)
    expected = replay.logits(batch)
    for reader in network.readers:
        steps = replay.behind([reader.node])
        kept = replay.frontier(steps)
        values = replay.run(batch, keep=kept)
        assert torch.equal(replay.resume({n: values[n] for n in kept}, steps), expected)


def zeros(replay, units):
    """Edits that make every reader see zero for the channels of `units`."""

    def edit(reader):
        positions = replay.positions(reader.labels, units)
        return lambda tensor: tensor.index_fill(reader.dim, positions, 0)

    return {(r.node, r.data): edit(r) for r in replay.readers(units)}


def zeroed(replay, batch, units):
    """The logits when the readers of `units` see zero, resumed before the first of them."""
    edits = zeros(replay, units)
    steps = replay.behind({node for node, _ in edits})
    return replay.resume(replay.run(batch, keep=replay.frontier(steps)), steps, edits)


@pytest.mark.parametrize("name", ["residual", "concat", "squeeze excite", "pad shortcut", "grouped", "vgg"])
def test_zeroing_what_readers_see_is_the_masked_original(name):
    network, batch = traced(name), fresh_batch(traced(name))
    for units in removals(network, singles=3):
        found = zeroed(Replay(network), batch, units)
        assert_close(found, logits_of(output(masked(network, units), batch)))


@pytest.mark.parametrize("name", ["mlp", "concat", "pad shortcut", "separable", "view shape"])
def test_zeroing_in_a_pruned_network_is_masking_both(name):
    network, batch = traced(name), fresh_batch(traced(name))
    first = removals(network, singles=0)[0]
    replay = Replay(network, remove(network, first), first)
    for unit in [u for u in network.units if u not in first][::3]:
        both = masked(network, [*first, unit])
        assert_close(zeroed(replay, batch, [unit]), logits_of(output(both, batch)))


@pytest.mark.parametrize("name", ["residual", "concat", "separable", "pre-activation", "shared conv", "two outputs"])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_kept_does_not_change_what_is_computed(name, seed):
    """Values that nobody needs may be written over; those asked for may not."""
    network, batch = traced(name), fresh_batch(traced(name))
    replay = Replay(network)
    everything = replay.run(batch)
    keep = random.Random(seed).sample(replay.order, len(replay.order) // 3)
    values = replay.run(batch, keep=keep)
    for node in [*keep, *network.graph.output.all_input_nodes]:
        assert torch.equal(values[node], everything[node]), node
    steps = replay.order[len(replay.order) // 2 :]
    frontier = {n: everything[n] for n in replay.frontier(steps)}
    before = {n: v.clone() for n, v in frontier.items()}
    assert torch.equal(replay.resume(frontier, steps), replay.read(everything))
    assert all(torch.equal(frontier[n], v) for n, v in before.items())


@pytest.mark.parametrize("name", ["mlp", "residual", "layer scale"])
def test_gradients_are_those_of_what_each_reader_sees(name):
    network, batch = traced(name), fresh_batch(traced(name))
    replay = Replay(network)
    replay.logits(batch)  # a run in inference mode before must not disturb
    logits, seen = replay.differentiable(batch)
    assert_close(logits.detach(), logits_of(output(network.model, batch)))
    reader = network.readers[-1]
    (gradient,) = torch.autograd.grad(logits.square().sum(), seen[reader.data])
    shift = 1e-3 * torch.randn_like(gradient)
    steps = replay.behind([reader.node])
    values = replay.run(batch, keep=replay.frontier(steps) | {reader.data})

    def at(sign):
        edits = {(reader.node, reader.data): lambda t: t + sign * shift}
        return replay.resume(values, steps, edits).double().square().sum()

    assert float((gradient * shift).sum()) == pytest.approx(float(at(1) - at(-1)) / 2, rel=2e-2, abs=1e-5)


def test_a_replay_leaves_model_and_values_alone():
    network, batch = traced("pre-activation"), fresh_batch(traced("pre-activation"))
    before = batch.args[0].clone()
    replay = Replay(network)
    values = replay.run(batch)
    copies = {n: v.clone() for n, v in values.items() if isinstance(v, torch.Tensor)}
    replay.resume(values, replay.order)
    assert torch.equal(batch.args[0], before)
    assert all(torch.equal(values[n], v) for n, v in copies.items())


def test_new_parameters_act_in_the_replay_only():
    network, batch = traced("mlp"), fresh_batch(traced("mlp"))
    replay = Replay(network)
    node = network.readers[-1].node
    weight, bias = replay.parameters_of(node)
    dense = replay.logits(batch)
    replay.set_parameters(node, 2 * weight, 2 * bias)
    assert_close(replay.logits(batch), 2 * dense)
    assert_close(output(network.model, batch), dense)


class Flattened(nn.Module):
    """A token in front, and a number in the code that is tokens times features."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.rows = nn.Linear(5, 4), Prepended(3, 4)
        self.width = 16
        self.head = nn.Linear(self.width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rows(self.features(x)).reshape(-1, self.width))


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_a_number_that_counts_two_things_loses_of_both(gone):
    network = trace(randomised(Flattened()), torch.randn(2, 3, 5))
    (group,) = network.groups
    units = list(group.units[:gone])
    pruned, batch = remove(network, units), fresh_batch(network)
    found = Replay(network, pruned, units).logits(batch)
    assert_close(found, output(pruned, batch))
    assert_close(found, output(masked(network, units), batch))
