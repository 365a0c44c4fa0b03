"""Uniting atoms gives the connected components, and rules map labels as the operation maps indices."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from whyprune.structure.labels import LabelSpace
from whyprune.structure.rules.layout import _reshaped

ATOMS = 12
pairs = st.lists(st.tuples(st.integers(0, ATOMS - 1), st.integers(0, ATOMS - 1)), max_size=20)


@given(pairs)
def test_classes_are_connected_components(edges):
    space = LabelSpace()
    atoms = space.fresh(ATOMS)
    left, right = (np.array([e[side] for e in edges], dtype=np.int64) for side in (0, 1))
    space.unite(left, right)
    graph = coo_array((np.ones(len(edges)), (left, right)), shape=(ATOMS, ATOMS))
    _, expected = connected_components(graph, directed=False)
    roots = space.roots(atoms)
    assert np.array_equal(roots[:, None] == roots, expected[:, None] == expected)
    assert set(roots.tolist()) <= set(atoms.tolist())


def test_arrays_of_different_lengths_cannot_be_united():
    space = LabelSpace()
    with pytest.raises(ValueError, match="cannot unite 2 with 3"):
        space.unite(space.fresh(2), space.fresh(3))


shapes = st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4)


@st.composite
def reshapes(draw):
    """Two shapes with equally many numbers, and the dimension of the first that holds channels."""
    old = draw(shapes)
    factors = [f for size in old for f in {4: [2, 2], 6: [2, 3]}.get(size, [size])]
    cuts = sorted(draw(st.lists(st.integers(0, len(factors)), max_size=3)))
    parts = [factors[a:b] for a, b in zip([0, *cuts], [*cuts, len(factors)], strict=True)]
    new = [int(np.prod(p)) for p in parts]
    return old, draw(st.permutations(new)) if draw(st.booleans()) else new, draw(st.integers(0, len(old) - 1))


@given(reshapes())
def test_labels_follow_a_reshape_as_indices_do(case):
    old, new, dim = case
    labels = np.arange(old[dim])
    out = _reshaped(tuple(labels if d == dim else None for d in range(len(old))), tuple(old), tuple(new))
    if out is None:
        return
    shape = [-1 if d == dim else 1 for d in range(len(old))]
    channel = torch.arange(old[dim]).reshape(shape).expand(old).reshape(new)  # of every number, after the reshape
    held = [(d, own) for d, own in enumerate(out) if own is not None]
    assert len(out) == len(new)
    assert len(held) == 1
    at, own = held[0]
    expected = torch.from_numpy(own).reshape([-1 if d == at else 1 for d in range(len(new))])
    assert torch.equal(channel, expected.expand(new))


@pytest.mark.parametrize(
    ("old", "new", "dim"), [((2, 6, 4, 4), (2, 96), 1), ((2, 6), (2, 6, 1, 1), 1), ((5, 2, 3), (5, 6), 2)]
)
def test_merging_keeps_the_channels(old, new, dim):
    labels = np.arange(old[dim])
    out = _reshaped(tuple(labels if d == dim else None for d in range(len(old))), old, new)
    assert out is not None
    assert [d for d, own in enumerate(out) if own is not None] == [1]
