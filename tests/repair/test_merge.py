"""Merging restores copies exactly, changes one column for each removed unit, and names what it cannot do."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import whyprune as wp
from repair.repaired_networks import NAMES, harm
from structure.networks import randomised, traced
from structure.removal_property import assert_close, assert_same_snapshot, fresh_batch, snapshot
from tiny import batches, digits, trained
from whyprune.errors import InputError
from whyprune.repair.merging import heirs, merge, unmerged
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace
from whyprune.testing import planted

FACTORS = {1: (0, 2.0), 4: (2, 0.5), 5: (3, 1.0)}
"""Unit -> (which one it is a copy of, of what scale)."""


def readers():
    """Name -> what reads eight channels of 6 x 6."""
    return {
        "convolution": [nn.Conv2d(8, 6, 3, padding=1)],
        "in front of a batch norm": [nn.Conv2d(8, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)],
        "strided": [nn.Conv2d(8, 6, 3, stride=2, padding=2, dilation=2)],
        "transposed": [nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1)],
        "flattened": [nn.Flatten(), nn.Linear(8 * 36, 12), nn.Unflatten(1, (3, 2, 2)), nn.Conv2d(3, 6, 1)],
        "weight norm": [weight_norm(nn.Conv2d(8, 6, 1))],
        "depthwise in between": [nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.ReLU(), nn.Conv2d(8, 6, 1)],
    }


def called(model, images):
    with torch.inference_mode():
        return model(images)


def with_copies(layers, normalised):
    """A network of which three units are copies of others, as large, larger and smaller."""
    first = [nn.Conv2d(3, 8, 3, padding=1), *([nn.BatchNorm2d(8)] if normalised else []), nn.ReLU()]
    model = randomised(
        nn.Sequential(*first, *layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    )
    with torch.no_grad():
        for unit, (original, factor) in FACTORS.items():
            scaled = model[1] if normalised else model[0]
            for tensor in (model[0].weight, model[0].bias):
                tensor[unit] = tensor[original] * (1 if normalised else factor)
            if normalised:
                model[1].running_mean[unit], model[1].running_var[unit] = (
                    model[1].running_mean[original],
                    model[1].running_var[original],
                )
                scaled.weight[unit] = factor * scaled.weight[original]
                scaled.bias[unit] = factor * scaled.bias[original]
            depthwise = model[len(first)]
            if isinstance(depthwise, nn.Conv2d) and depthwise.groups == 8:
                depthwise.weight[unit] = depthwise.weight[original]
    return model


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("name", list(readers()))
def test_copies_of_any_scale_are_restored_exactly(name, normalised):
    model = with_copies(readers()[name], normalised)
    network = trace(model, torch.randn(2, 3, 6, 6))
    batch = torch.randn(40, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    group = network.units[0].group
    cut = remove(State.of(network), [f"{group}:{k}" for k in FACTORS])
    before = snapshot(cut.model)
    expected = called(model, batch)
    assert float((called(cut.model, batch) - expected).abs().max()) > 1e-3
    restored = merge(cut, [batch])
    assert_close(called(restored.model, batch), expected)
    assert_same_snapshot(before, snapshot(cut.model))
    assert unmerged(cut) == ()


@pytest.mark.parametrize("readers", [1, 2])
def test_planted_copies_are_restored_and_one_column_changes_for_each(readers):
    case = planted.case(readers)
    gone = (planted.OTHER_COPY, planted.MINUS, planted.DEAD)
    cut = remove(State.of(case.network), [case.unit(k) for k in gone])
    merged = merge(cut, [case.batch])
    assert_close(called(merged.model, case.images), called(case.network.model, case.images))
    left = [k for k in range(planted.UNITS) if k not in gone]
    for layer in ("left", "right")[:readers]:
        old, new = (getattr(state.model, layer) for state in (cut, merged))
        changed = (old.weight != new.weight).flatten(2).any(dim=2).any(dim=0).nonzero().flatten().tolist()
        assert [left[k] for k in changed] == [planted.COPY, planted.PLUS]
        assert torch.equal(old.bias, new.bias)
    for layer in ("units", "head"):
        assert torch.equal(getattr(cut.model, layer).weight, getattr(merged.model, layer).weight)


def test_the_heir_is_the_best_of_all_least_squares_fits_of_one_unit():
    case = planted.case(1)
    gone, stay = [case.unit(k) for k in (1, 6, 8)], [0, 2, 3, 4, 5, 7]
    cut = remove(State.of(case.network), gone)
    with torch.no_grad():
        maps = torch.relu(case.network.model.units(case.images)).double().movedim(1, 0).flatten(1).numpy()
    (found,) = heirs(cut, [case.batch]).values()
    for heir in found:
        own = maps[heir.removed.index]
        fits = {k: np.linalg.lstsq(maps[k][:, None], own, rcond=None)[0][0] if maps[k].any() else 0.0 for k in stay}
        lost = {k: np.square(own - factor * maps[k]).sum() for k, factor in fits.items()}
        best = min(lost, key=lost.__getitem__)
        assert heir.kept.index == best
        assert heir.factor == pytest.approx(fits[best], rel=1e-5)
        assert heir.explained == pytest.approx(1 - lost[best] / np.square(own).sum(), abs=1e-5)
    assert [heir.removed.name for heir in found] == gone


@pytest.mark.parametrize("name", NAMES)
def test_the_outcome_is_no_worse_on_images_that_it_was_not_fitted_on(name):
    network = traced(name)
    units = network.select([u.name for g in network.groups for u in g.units[:: max(2, len(g.units) // 2)][1:]])
    cut, batch = remove(State.of(network), units), fresh_batch(network, count=60)
    merged = merge(cut, [batch])
    unseen = batch[:20]  # a third is kept apart, the first images
    assert harm(network, merged.model, unseen) <= harm(network, cut.model, unseen) * (1 + 1e-5) + 1e-9


def test_it_repairs_a_trained_network_on_images_it_has_not_seen():
    network = trace(trained(), digits()[0][:2])
    cut = remove(State.of(network), [u.name for g in network.groups for u in g.units[::4]])
    merged = merge(cut, batches(1000, 1256))
    before, after = (wp.joint_effect(state, batches(1256, 1512)).mean for state in (cut, merged))
    assert after < 0.8 * before


def test_weights_stay_where_the_outcome_would_become_worse_and_bad_data_is_refused():
    network = traced("residual")
    cut, batch = remove(State.of(network), network.units[:3]), fresh_batch(network, count=24)

    def closeness(logits, dense, labels):
        return -(logits - dense).square().sum(dim=1)

    assert_same_snapshot(snapshot(cut.model), snapshot(merge(cut, [batch], outcome=closeness).model))
    with pytest.raises(InputError, match="no data"):
        merge(cut, [])
    with pytest.raises(InputError, match="at least 6"):
        merge(cut, [fresh_batch(network, count=4)])


class Unmergeable(nn.Module):
    """A convolution whose channels are read by a weight that is used twice, and by a product by hand."""

    def __init__(self):
        super().__init__()
        self.units = nn.Conv2d(3, 6, 3)
        self.twice = nn.Linear(6, 6)
        self.hand = nn.Parameter(torch.randn(6, 4))

    def forward(self, x):
        x = self.units(x).relu().mean(dim=(2, 3))
        return torch.relu(self.twice(x) + self.twice(2 * x)) @ self.hand


def test_what_cannot_be_merged_is_named_and_left_as_it_is():
    model = randomised(Unmergeable())
    network = trace(model, torch.randn(2, 3, 6, 6))
    cut = remove(State.of(network), [group.units[0] for group in network.groups])
    reasons = " ".join(f"{layer.where}: {layer.reason}" for layer in unmerged(cut))
    assert "used more than once" in reasons
    assert "by hand" in reasons
    merged = merge(cut, [torch.randn(30, 3, 6, 6)])
    assert_same_snapshot(snapshot(cut.model), snapshot(merged.model))


def test_a_run_with_merge_says_what_it_left():
    images = torch.randn(64, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    result = wp.prune(
        copy.deepcopy(randomised(Unmergeable())),
        [images],
        budget=wp.Budget(params=0.9),
        example_inputs=images[:2],
        method="magnitude-l2",
        settings=wp.Settings(latency=False, refute=False, repair="merge", views=1, effect_images=16),
        progress=False,
    )
    assert any("not merged" in note for note in result.measurements.notes)
