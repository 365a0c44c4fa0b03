"""Masks: masked is removed, for every network and after training; held masks are held."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import tiny
from structure.networks import CASES, traced
from structure.removal_property import assert_close, fresh_batch, output, removals
from whyprune.errors import InputError
from whyprune.recovery import Recovery, UnitMasks, masking, recover
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace

DATA = tiny.batches(0, 320)


@pytest.fixture(scope="module")
def network():
    return trace(tiny.trained(), tiny.digits()[0][:2])


def slices_of(model, units):
    """All coupled entries of parameters and buffers but variances, in one vector."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    pieces = [s for u in units for s in u.slices if not s.parameter.endswith("running_var")]
    return torch.cat(
        [torch.zeros(0)]
        + [tensors[s.parameter].detach().index_select(s.axis, torch.tensor(s.indices)).flatten() for s in pieces]
    )


@pytest.mark.parametrize("name", [*CASES, "resnet20", "vgg16_bn"])
def test_masked_is_removed(name):
    network = traced(name)
    batch = fresh_batch(network)
    for drawn in removals(network, singles=3):
        units = [unit for unit in drawn if not unit.marks]  # marked ones are not removed by being zero
        model = copy.deepcopy(network.model)
        masks = UnitMasks(model, network)
        masks.set(units, 0)
        assert_close(output(model, batch), output(network.model, batch))  # not before it is applied
        masks.apply()
        assert not slices_of(model, units).any()
        assert_close(output(model, batch), output(remove(network, units), batch))


def test_a_residual_block_that_is_masked_as_a_whole_is_bypassed():
    network = traced("resnet20")
    block = network.blocks[0]
    units = [unit for name in block.groups for unit in network.group(name).units]
    model = copy.deepcopy(network.model)
    masks = UnitMasks(model, network)
    masks.set(units, 0)
    masks.apply()
    batch = fresh_batch(network)
    assert_close(output(model, batch), output(remove(network, units), batch))


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "adamw", "learning_rate": 0.01}, {"ema": 0.8}, {"penalty": None, "clip_grad_norm": 1.0}],
)
def test_units_that_are_held_stay_zero_and_are_pruned_after_training(network, changes):
    units = [u for g in network.groups for u in g.units[::3]]
    recovery = Recovery(**({"epochs": 2, "learning_rate": 0.05} | changes))
    found = recover(State.of(network), DATA, recovery, penalty=masking(units), progress=False)
    assert not slices_of(found.model, units).any()
    others = [u for u in network.units if u not in units]
    assert not torch.equal(slices_of(found.model, others), slices_of(network.model, others))
    batch = fresh_batch(network, 32)
    pruned = remove(State.of(network).with_model(found.model), units)
    assert_close(output(pruned.model, batch), output(found.model, batch))
    assert [epoch.penalty for epoch in found.history] == [0.0, 0.0]


def test_held_masks_resume_to_the_same_weights(network, tmp_path):
    units, path = network.units[::4], tmp_path / "training"
    recovery = Recovery(epochs=2, learning_rate=0.05)

    def run(**options):
        return recover(State.of(network), DATA, recovery, penalty=masking(units), progress=False, **options)

    def stop(epoch, step):
        if (epoch, step) == (2, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=path, checkpoint_interval_s=0, on_step=stop)
    resumed, whole = run(checkpoint=path, resume=True).model.state_dict(), run().model.state_dict()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_a_soft_mask_scales_parameters_and_leaves_buffers(network):
    unit = network.group("inner.0").units[2]
    model = copy.deepcopy(network.model)
    masks = UnitMasks(model, network)
    masks.set([unit.name], 0.5)
    masks.apply()
    before = network.model.state_dict()
    for name, parameter in model.named_parameters():
        expected = before[name].clone()
        for piece in (s for s in unit.slices if s.parameter == name):
            expected.index_copy_(
                piece.axis,
                torch.tensor(piece.indices),
                0.5 * expected.index_select(piece.axis, torch.tensor(piece.indices)),
            )
        assert torch.equal(parameter, expected), name
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    masks.set([unit], 1.0)
    masks.apply()
    assert torch.equal(model.inner[0].weight[2], 0.5 * network.model.inner[0].weight[2])
    assert masks.factors.tolist() == [1.0] * len(network.units)


def test_unusable_masks_are_refused(network):
    masks = UnitMasks(copy.deepcopy(network.model), network)
    with pytest.raises(InputError, match="no unit named 'nothing:0'"):
        masks.set(["nothing:0"], 0)
    with pytest.raises(InputError, match="is nan"):
        masks.set([network.units[0]], float("nan"))
    with pytest.raises(InputError, match="the model is not the traced network"):
        UnitMasks(nn.Linear(2, 2), network)
    normed = nn.Sequential(weight_norm(nn.Linear(5, 6)), nn.ReLU(), nn.Linear(6, 2)).eval()
    parametrised = trace(normed, torch.randn(2, 5))
    with pytest.raises(InputError, match="parametrised"):
        UnitMasks(normed, parametrised)
