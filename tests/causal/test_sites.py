"""What is read at a site is what hooks see there, and sites depend on each other as the network's layers do."""

import numpy as np
import pytest
import torch

from tiny import digits, trained
from whyprune.causal.fitted.sites import sites, watch
from whyprune.causal.fitted.variables import variables
from whyprune.interventions.worlds import Worlds
from whyprune.structure.trace import trace
from whyprune.testing import planted


@pytest.fixture(scope="module")
def residual():
    images, labels = digits()
    network = trace(trained(), images[:2])
    return Worlds(network, [(images[1000:1040], labels[1000:1040])])


def test_a_residual_stream_is_read_twice_and_passes_by_the_block(residual):
    found = sites(residual.replay, residual.units)
    shape = {
        s.name: ([found.sites[k].name for k in s.read], [found.sites[k].name for k in s.passed]) for s in found.sites
    }
    assert shape == {
        "inner.0": ([], []),
        "outer.0": (["inner.0"], []),
        "wide.0": (["outer.0"], ["inner.0"]),
        "head": (["wide.0"], []),
    }
    assert [found.sites[k].name for k in found.last] == ["head"]
    assert found.sites[0].units.tolist() == found.sites[2].units.tolist()


@pytest.mark.parametrize("readers", [1, 2])
def test_summaries_are_the_means_that_hooks_see(readers):
    case = planted.case(readers)
    worlds = Worlds(case.network, [case.batch])
    where = sites(worlds.replay, worlds.units)
    masks = np.random.default_rng(0).random((30, len(worlds.units))) < 0.3
    images = np.random.default_rng(1).integers(0, 96, 30)
    runs = watch(worlds, where, masks, images)
    model, x = case.network.model, case.images[images]
    with torch.no_grad():
        units = torch.relu(model.units(x))
        gone = units * ~torch.from_numpy(masks[:, : planted.UNITS])[:, :, None, None]
        inner = model.left(gone) if model.right is None else model.left(gone) + model.right(gone)
        inner = torch.relu(inner).mean(dim=(2, 3))
    np.testing.assert_allclose(runs.raw[0], units.mean(dim=(2, 3)), atol=1e-5)
    np.testing.assert_allclose(runs.seen[0], gone.mean(dim=(2, 3)), atol=1e-5)
    np.testing.assert_allclose(runs.raw[1], inner, atol=1e-5)
    np.testing.assert_allclose(runs.seen[1], inner.numpy() * ~masks[:, planted.UNITS :], atol=1e-5)
    np.testing.assert_allclose(runs.logits, worlds.logits(masks, images), atol=1e-5)


def test_watching_costs_one_pass_a_row(residual):
    before = residual.forward_passes
    masks = np.ones((7, len(residual.units)), dtype=bool)
    watch(residual, sites(residual.replay, residual.units), masks, np.arange(7))
    assert residual.forward_passes == before + 7


def test_few_variables_are_units_and_many_are_blocks_of_a_group(residual):
    alone = variables(residual, 100)
    assert len(alone.titles) == len(residual.units)
    assert len(alone.names) == len(set(alone.names)) == 8 + 10 + 8 + 12
    blocks = variables(residual, 15)
    assert len(blocks.names) <= 15
    for number, title in enumerate(blocks.titles):
        units = [residual.units[k] for k in np.flatnonzero(blocks.part == number)]
        assert {u.group for u in units} == {title.split(":")[0]}
    row = np.arange(len(blocks.where.sites[0].units), dtype=float)[None]
    means = row @ blocks.averages[0]
    inside = [row[0, blocks.part[blocks.where.sites[0].units] == p].mean() for p in blocks.here[0]]
    np.testing.assert_allclose(means[0], inside)


def test_the_parents_of_a_variable_are_what_its_layer_reads_and_what_passes_on(residual):
    every = variables(residual, 100)
    stem, inner, stream, wide = every.spans
    assert set(every.parents[inner.start]) == set(range(stem.start, stem.stop))
    assert set(every.parents[stream.start + 3]) == {*range(inner.start, inner.stop), stem.start + 3}
    assert set(every.parents[wide.start]) == set(range(stream.start, stream.stop))
    assert every.parents[stem.start] == ()
