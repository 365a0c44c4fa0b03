"""Attention goes by whole heads, or by the width that all heads share."""

import pytest
import torch
import torch.nn.functional as F
from networks import CLASSES, randomised
from removal_property import output, removals
from torch import nn

from whyprune.data.batches import Batch
from whyprune.errors import InputError
from whyprune.structure.remove import masked, remove
from whyprune.structure.trace import trace

HEADS, WIDTH, STREAM = 3, 4, 10


class Attention(nn.Module):
    """Attention over places, with a scale of its own or the usual one."""

    def __init__(self, scale):
        super().__init__()
        self.num_heads, self.head_dim, self.scale = HEADS, WIDTH, scale
        self.stem = nn.Linear(5, STREAM)
        self.q, self.k, self.v = (nn.Linear(STREAM, HEADS * WIDTH) for _ in range(3))
        self.out, self.head = nn.Linear(HEADS * WIDTH, STREAM), nn.Linear(STREAM, CLASSES)

    def split(self, x):
        return x.view(x.shape[0], x.shape[1], self.num_heads, self.head_dim).transpose(1, 2)

    def split_values(self, x):
        return x.view(x.shape[0], x.shape[1], self.num_heads, -1).transpose(1, 2)

    def forward(self, x):
        x = self.stem(x)
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split_values(self.v(x))
        mixed = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.head((x + self.out(mixed.transpose(1, 2).flatten(2))).mean(1))


def units_of(network, layer):
    return [u for u in network.units if any(s.parameter == f"{layer}.weight" and s.axis == 0 for s in u.slices)]


def traced(heads, scale):
    return trace(randomised(Attention(scale)), torch.randn(2, 7, 5), heads=heads)


@pytest.mark.parametrize("scale", [None, 0.3])
def test_whole_heads(scale):
    network = traced("whole", scale)
    assert len(units_of(network, "q")) == len(units_of(network, "v")) == HEADS
    for unit in units_of(network, "q"):
        rows = {s.parameter: s.indices for s in unit.slices if s.axis == 0}
        first = rows["q.weight"][0]
        assert rows["q.weight"] == rows["k.weight"] == rows["v.weight"] == tuple(range(first, first + WIDTH))


@pytest.mark.parametrize(("scale", "queries"), [(None, 0), (0.3, WIDTH)])
def test_the_width_that_all_heads_share(scale, queries):
    """Without a scale of its own the attention is scaled by the queries' width, which then stays."""
    network = traced("width", scale)
    assert len(units_of(network, "q")) == queries
    assert len(units_of(network, "v")) == WIDTH
    for unit in units_of(network, "v"):
        rows = next(s.indices for s in unit.slices if s.parameter == "v.weight")
        assert len(rows) == HEADS
        assert len({r % WIDTH for r in rows}) == 1


@pytest.mark.parametrize("heads", ["whole", "width"])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_either_way_the_removal_is_right(heads, scale):
    network = traced(heads, scale)
    batch = Batch((torch.randn(4, 7, 5),), {})
    for units in removals(network, singles=4):
        pruned = remove(network, units)
        torch.testing.assert_close(output(pruned, batch), output(masked(network, units), batch), rtol=0, atol=1e-5)


def test_another_way_is_unknown():
    with pytest.raises(InputError, match="heads is 'half'"):
        traced("half", None)
