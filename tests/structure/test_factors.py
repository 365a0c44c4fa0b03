"""Factors that the code computes from a width, such as 1 / sqrt(width): no removal may change them, seen or not."""

import math
from itertools import pairwise

import pytest
import torch
from networks import CLASSES, randomised
from removal_property import assert_close, output, removals
from torch import nn

from whyprune.data.batches import Batch
from whyprune.structure.factors import rescaled
from whyprune.structure.remove import masked, remove
from whyprune.structure.trace import trace

WIDTHS = (5, 6, 4)
WAYS = {
    "power": lambda scores, width: scores * width**-0.5,
    "root": lambda scores, width: scores / math.sqrt(width),
    "whole": lambda scores, width: scores / width,
    "in place": lambda scores, width: scores.mul_(1 / width),
    "tensor": lambda scores, width: scores / torch.sqrt(torch.tensor(float(width))),
    "filled": lambda scores, width: scores * torch.full((), 1 / width),
    "fused": lambda scores, width: torch.add(torch.zeros(()), scores, alpha=1 / width),
}


class OneHead(nn.Module):
    """Attention of one head without any view, whose scores are divided by what `width` says: no number counts channels.

    Queries and keys of zero on inputs of zero: there no output shows the factor.
    """

    def __init__(self, way: str, fixed: bool) -> None:
        super().__init__()
        self.way, self.fixed = WAYS[way], fixed
        self.embed, self.q, self.k = (nn.Linear(a, b, bias=False) for a, b in [*pairwise(WIDTHS), WIDTHS[1:]])
        self.v, self.head = nn.Linear(6, 7), nn.Linear(7, CLASSES)

    def forward(self, x):
        x = self.embed(x)
        q, k, v = self.q(x), self.k(x), self.v(x)
        scores = self.way(q @ k.transpose(1, 2), WIDTHS[-1] if self.fixed else q.shape[-1])
        return self.head((scores.softmax(-1) @ v).mean(1))


@pytest.mark.parametrize("way", WAYS)
def test_channels_whose_count_is_a_factor_are_kept_although_no_output_shows_it(way):
    network = trace(randomised(OneHead(way, fixed=False)), torch.zeros(2, 3, 5))
    assert {g.name for g in network.groups} == {"embed", "v"}
    (refusal,) = [r for r in network.refusals if "calculates with a number that changes with their width" in r.reason]
    assert refusal.where.startswith("test_factors.py:")
    assert {axis for axis, _ in refusal.axes} == {"q.weight", "k.weight"}
    batch = Batch((torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1)),), {})
    for removal in removals(network, singles=9):
        assert_close(output(remove(network, removal), batch), output(masked(network, removal), batch))


@pytest.mark.parametrize("way", WAYS)
def test_a_factor_that_is_a_constant_keeps_nothing(way):
    network = trace(randomised(OneHead(way, fixed=True)), torch.zeros(2, 3, 5))
    assert {g.name: len(g.units) for g in network.groups} == {"embed": 6, "q": 4, "v": 7}
    assert rescaled(network, network.groups[1].units[:2]) is None


def test_two_factors_are_found_each_with_its_own_channels():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three, self.head = (nn.Linear(a, b) for a, b in pairwise((5, 6, 7, 8, CLASSES)))

        def forward(self, x):
            x = torch.relu(self.one(x))
            x = self.two(x * x.shape[1] ** 0.5).relu()
            return self.head(torch.relu(self.three(x)) * (self.three.out_features / 8))

    network = trace(randomised(Two()), torch.randn(2, 5))
    assert {g.name for g in network.groups} == {"two"}
    assert sum("calculates with" in r.reason or "cannot follow" in r.reason for r in network.refusals) == 2
