"""A pruned network computes what the original computes under do(removed := 0)."""

import pytest
import torch
import torch.nn.functional as F
from networks import CASES, build, traced
from removal_property import (
    assert_close,
    assert_removal_is_right,
    fresh_batch,
    output,
    removals,
)
from torch import nn

from whyprune.errors import InputError
from whyprune.models import BUILT_INS
from whyprune.structure.remove import masked, remove


@pytest.mark.parametrize("name", CASES)
def test_small_networks_are_right_after_every_removal(name):
    network = traced(name)
    for units in removals(network, singles=4):
        assert_removal_is_right(network, units)


@pytest.mark.parametrize("name", BUILT_INS)
def test_built_in_networks_are_right_after_every_removal(name):
    network = traced(name)
    for units in removals(network, singles=1)[:3]:
        assert_removal_is_right(network, units, tolerance=1e-4)  # float32 through up to 56 layers


@pytest.mark.parametrize("name", ["mlp", "residual", "concat", "separable", "pad shortcut", "shared conv"])
def test_every_single_unit_can_go(name):
    network = traced(name)
    for unit in network.units:
        assert_removal_is_right(network, [unit])


def zero(x, channels):
    """A copy of x with these channels (dimension 1) zero."""
    x = x.clone()
    x[:, sorted(channels)] = 0
    return x


def by_group(units):
    gone = {}
    for unit in units:
        gone.setdefault(unit.group, set()).add(unit.index)
    return gone


def hooked(model, gone):
    """A copy of a Sequential whose layers see zeros for the channels in `gone` (layer -> channels it writes)."""
    current = set()
    for name, layer in model.named_children():
        if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
            continue
        if current:
            layer.register_forward_pre_hook(lambda _, args, c=frozenset(current): (zero(args[0], c),))
        if getattr(layer, "groups", 1) == 1:
            current = gone.get(name, set())
    return model


@pytest.mark.parametrize("name", ["mlp", "conv1d", "separable", "sigmoid", "batch norm without affine"])
def test_sequential_networks_agree_with_zeroing_hooks(name):
    network = traced(name)
    batch = fresh_batch(network)
    for units in removals(network, singles=4):
        expected = output(hooked(build(name), by_group(units)), batch)
        assert_close(output(remove(network, units), batch), expected)
        assert_close(output(masked(network, units), batch), expected)


def residual(m, x, gone):
    stream = gone.get("stem.0", set())
    x = zero(m.stem(x), stream)
    return m.head(zero(F.relu(m.second(zero(m.first(x), gone.get("first.0", set()))) + x), stream).mean((2, 3)))


def padded(m, x, gone):
    stem = gone.get("stem.0", set())
    x = zero(m.stem(x), stem)
    y = m.second(zero(m.first(x), gone.get("first.0", set())))
    y[:, 2:8] += x
    return m.head(zero(F.relu(y), {i + 2 for i in stem} | gone.get("second.0", set())).mean((2, 3)))


def concatenated(m, x, gone):
    def parts(*names):
        starts = {"stem": 0, "conv1": 4, "conv2": 7}
        return {starts[n] + i for n in names for i in gone.get(n, set())}

    x = m.stem(x)
    x = torch.cat([x, m.conv1(zero(F.relu(m.norm1(x)), parts("stem")))], 1)
    x = torch.cat([x, m.conv2(zero(F.relu(m.norm2(x)), parts("stem", "conv1")))], 1)
    return m.head(zero(F.relu(m.norm3(x)), parts("stem", "conv1", "conv2")).mean((2, 3)))


def squeezed(m, x, gone):
    x = zero(m.stem(x), gone.get("stem.0", set()))
    scale = torch.sigmoid(m.excite(zero(F.relu(m.squeeze(x.mean((2, 3), keepdim=True))), gone.get("squeeze", set()))))
    x = m.last(x * scale)
    return m.head(zero(F.gelu(x), gone.get("last", set())).mean((2, 3)))


def flattened(m, x, gone):
    x = zero(m.features(x), gone.get("features.0", set()))
    return m.head(x.flatten(1))


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("residual", residual),
        ("pad shortcut", padded),
        ("concat", concatenated),
        ("squeeze excite", squeezed),
        ("view shape", flattened),
    ],
)
def test_branched_networks_agree_with_zeroing_by_hand(name, oracle):
    network = traced(name)
    batch, model = fresh_batch(network), build(name)
    for seed in range(3):
        for units in removals(network, singles=4, seed=seed):
            with torch.inference_mode():
                expected = oracle(model, *batch.args, by_group(units))
            assert_close(output(remove(network, units), batch), expected)
            assert_close(output(masked(network, units), batch), expected)


def test_names_and_units_mean_the_same_and_order_does_not_matter():
    network = traced("concat")
    units = removals(network, singles=0)[0]
    one = remove(network, units).state_dict()
    other = remove(network, [u.name for u in reversed(units)] + [units[0].name]).state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_removing_nothing_gives_an_equal_copy():
    network = traced("residual")
    copy = remove(network, [])
    assert copy is not network.model
    for name, tensor in copy.state_dict().items():
        original = network.model.state_dict()[name]
        assert torch.equal(tensor, original)
        assert tensor.data_ptr() != original.data_ptr()


def test_tied_weights_stay_tied():
    network = traced("tied")
    pruned = remove(network, network.units[:2])
    assert pruned.one.weight is pruned.other.weight
    assert pruned.one.weight.shape == (4, 4)


def test_frozen_parameters_stay_frozen():
    network = traced("mlp")
    network.model[0].weight.requires_grad_(False)
    try:
        pruned = remove(network, network.units[:1])
    finally:
        network.model[0].weight.requires_grad_(True)
    assert [p.requires_grad for p in pruned[0].parameters()] == [False, True]


@pytest.mark.parametrize("change", [remove, masked])
@pytest.mark.parametrize("name", ["mlp", "grouped", "residual"])
def test_no_axis_may_be_left_empty(change, name):
    network = traced(name)
    for group in network.groups:
        with pytest.raises(InputError, match="keep at least one"):
            change(network, group.units)


@pytest.mark.parametrize("change", [remove, masked])
def test_unknown_units_are_named(change):
    with pytest.raises(InputError, match=r"no unit named '0:99' \(2 unknown\)"):
        change(traced("mlp"), ["0:1", "0:99", "nine"])
