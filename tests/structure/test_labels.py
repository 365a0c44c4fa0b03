"""Uniting atoms gives the connected components; layers move as the values do; spread channels go in rectangles."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from whyprune.structure.closure import _close_rectangles
from whyprune.structure.labels import NONE, LabelSpace, compressed, support, varies, vector
from whyprune.structure.rules.base import Rectangle

ATOMS = 12
pairs = st.lists(st.tuples(st.integers(0, ATOMS - 1), st.integers(0, ATOMS - 1)), max_size=20)


@given(pairs)
def test_classes_are_connected_components(edges):
    space = LabelSpace()
    atoms = space.fresh(ATOMS)
    left, right = (torch.tensor([e[side] for e in edges], dtype=torch.int64) for side in (0, 1))
    space.unite(left, right)
    graph = coo_array((np.ones(len(edges)), (left.numpy(), right.numpy())), shape=(ATOMS, ATOMS))
    _, expected = connected_components(graph, directed=False)
    roots = space.roots(atoms).numpy()
    assert np.array_equal(roots[:, None] == roots, expected[:, None] == expected)
    assert (roots <= atoms.numpy()).all()


def test_arrays_of_different_lengths_cannot_be_united():
    space = LabelSpace()
    with pytest.raises(ValueError, match="broadcast"):
        space.unite(space.fresh(2), space.fresh(3))


def test_what_is_no_channel_unites_with_nothing():
    space = LabelSpace()
    atoms = space.fresh(3)
    space.unite(atoms, torch.tensor([NONE, 0, NONE]))
    assert space.roots(atoms).tolist() == [0, 0, 2]
    assert space.roots(torch.tensor([NONE])).tolist() == [NONE]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_a_compressed_layer_is_the_same_layer(shape, data):
    dims = data.draw(st.sets(st.integers(0, len(shape) - 1)))
    small = [size if d in dims else 1 for d, size in enumerate(shape)]
    layer = torch.arange(int(np.prod(small))).reshape(small)
    full = layer.expand(shape).contiguous()
    found = compressed(full)
    assert torch.equal(found.expand(shape), full)
    assert support(found) == {d for d, size in enumerate(small) if size > 1}


sides = st.integers(2, 4)


@given(sides, sides, st.sets(st.integers(0, 15), max_size=6), st.sampled_from([{0}, {1}, {0, 1}]))
def test_spread_channels_end_as_whole_rows_or_columns(rows, columns, links, dims):
    space = LabelSpace()
    layer = space.fresh(rows * columns).reshape(rows, columns)
    for link in links:
        space.unite(layer.flatten()[link % layer.numel()], layer.flatten()[(link * 7 + 3) % layer.numel()])
    before = space.roots(layer)
    while _close_rectangles(space, [Rectangle(layer, frozenset(dims), "", "")]):
        pass
    roots = space.roots(layer)
    assert any(not varies(roots, {1 - dim}) for dim in dims)  # whichever way: all entries of an index are one class
    for old in before.unique():
        assert len(roots[before == old].unique()) == 1  # what was together stays together


def test_the_finer_way_is_taken_where_both_are_open():
    space = LabelSpace()
    layer = space.fresh(10).reshape(2, 5)
    while _close_rectangles(space, [Rectangle(layer, frozenset({0, 1}), "", "")]):
        pass
    assert vector(space.roots(layer), 1).tolist() == [0, 1, 2, 3, 4]
    assert not varies(space.roots(layer), {0})


def test_a_rectangle_with_values_that_are_no_channels_is_closed_in_one_go():
    """They never look like the channels beside them: the closing must not wait for that."""
    space = LabelSpace()
    labelling = space.fresh(12).reshape(3, 4).clone()
    labelling[2, 3] = NONE
    rectangles = [Rectangle(labelling, frozenset({0, 1}), "here", "no way")]
    passes = 0
    while _close_rectangles(space, rectangles):
        passes += 1
        assert passes < 3, "it goes round"
    roots = space.roots(labelling)
    along_columns = [len({int(v) for v in column if v >= 0}) for column in roots.T]
    assert along_columns == [1, 1, 1, 1]
    assert space.pins  # the column that the foreign value lies in is kept whole
