"""A grouped convolution and the dense one with blocks of zeros compute the same function: so do their removals."""

import numpy as np
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import whyprune as wp
from structure.networks import randomised
from whyprune.interventions.worlds import Worlds

WIDTH = 8


class Grouped(nn.Module):
    """Three convolutions, the middle one in groups, over signals or pictures."""

    def __init__(self, dims: int, groups: int, transposed: bool, normalised: bool, bias: bool) -> None:
        super().__init__()
        conv, norm = ((nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d))[dims - 1]
        middle = (nn.ConvTranspose1d, nn.ConvTranspose2d)[dims - 1] if transposed else conv
        self.a = conv(3, WIDTH, 3, padding=1)
        self.b = middle(WIDTH, WIDTH, 3, stride=2, padding=1, groups=groups, bias=bias)
        self.norm = norm(WIDTH) if normalised else nn.Identity()
        self.c, self.f = conv(WIDTH, 6, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.b(torch.relu(self.a(x)))))
        return self.f(torch.relu(self.c(x)).flatten(2).mean(2))


def with_zero_blocks(weight: Tensor, groups: int, transposed: bool) -> Tensor:
    """The weight of the dense convolution: group by group on the diagonal, zeros elsewhere."""
    blocks = weight.chunk(groups, 0)  # transposed: rows are inputs, of all outputs of their group; else the other way
    dense = weight.new_zeros(weight.shape[0], weight.shape[1] * groups, *weight.shape[2:])
    for g, block in enumerate(blocks):
        rows, columns = block.shape[:2]
        dense[g * rows : (g + 1) * rows, g * columns : (g + 1) * columns] = block
    return dense


def channels(unit: wp.Unit, transposed: bool) -> set[tuple[str, int]]:
    """The output channels of convolutions that go with a unit; of a grouped transposed one by its bias or norm."""
    return {
        (piece.parameter.partition(".")[0], k)
        for piece in unit.slices
        for k in piece.indices
        if (
            (piece.parameter in ("a.weight", "b.weight", "c.weight") and piece.axis == 0)
            and not (transposed and piece.parameter == "b.weight")
        )
        or piece.parameter in ("b.bias", "norm.weight")
    }


@given(
    dims=st.sampled_from([1, 2]),
    groups=st.sampled_from([2, 4, 8]),
    transposed=st.booleans(),
    normalised=st.booleans(),
    seed=st.integers(0, 9),
)
@settings(max_examples=8, deadline=None, derandomize=True, phases=[Phase.generate])
def test_a_grouped_convolution_is_the_dense_one_with_zero_blocks(dims, groups, transposed, normalised, seed):
    shape = (dims, groups, transposed, normalised, not normalised)
    grouped = randomised(Grouped(*shape), seed=seed).double()
    dense = Grouped(dims, 1, *shape[2:]).double()
    state = grouped.state_dict()
    dense.load_state_dict({**state, "b.weight": with_zero_blocks(state["b.weight"], groups, transposed)})
    dense.eval()
    x = torch.randn(6, 3, *(7,) * dims, generator=torch.Generator().manual_seed(seed)).double()
    torch.testing.assert_close(grouped(x), dense(x))

    one, other = wp.trace(grouped, x[:2]), wp.trace(dense, x[:2])
    alone = {channel: k for k, u in enumerate(other.units) for channel in channels(u, transposed)}
    counterparts = [sorted({alone[c] for c in channels(u, transposed)}) for u in one.units]
    assert sorted(k for units in counterparts for k in units) == list(range(len(other.units)))
    masks = np.zeros((len(one.units), len(other.units)), dtype=bool)
    for mask, units in zip(masks, counterparts, strict=True):
        mask[units] = True

    effects = wp.exact_effects(one, [x], per_image=True).per_image
    worlds = Worlds(other, [x])
    for image in range(len(x)):
        found = worlds.effects(masks, np.full(len(masks), image))
        np.testing.assert_allclose(found, effects[:, image], rtol=1e-4, atol=1e-7)

    chosen = list(range(0, len(one.units), 3))
    removed = wp.remove(one, [one.units[k] for k in chosen])
    there = wp.remove(other, [other.units[u] for u in np.flatnonzero(masks[chosen].any(axis=0))])
    with torch.no_grad():
        torch.testing.assert_close(removed(x), there(x))
    own = with_zero_blocks(removed.b.weight, removed.b.groups, transposed)
    torch.testing.assert_close(own, there.b.weight)
