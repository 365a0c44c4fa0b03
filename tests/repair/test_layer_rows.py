import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from structure.networks import traced
from whyprune.repair.rows import ROWS_PER_FEATURE, Layout, layout, sample_places
from whyprune.structure.operations import name_of

PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=60, deadline=None)
@given(
    kernel=PAIRS,
    stride=PAIRS,
    dilation=PAIRS,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    size=st.tuples(st.integers(3, 8), st.integers(3, 8)),
    seed=st.integers(0, 99),
)
def test_rows_are_the_patches_that_a_convolution_multiplies(kernel, stride, dilation, padding, size, seed):
    assume(all(n + 2 * p >= d * (k - 1) + 1 for n, p, d, k in zip(size, padding, dilation, kernel, strict=True)))
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(2, 3, *size, generator=generator)
    weight = torch.randn(4, 3, *kernel, generator=generator)
    out = F.conv2d(data, weight, None, stride, padding, dilation)
    total = out[0, 0].numel()
    places = torch.randperm(total, generator=generator)[: max(1, total // 2)].sort().values
    how = Layout(kernel, stride, padding, dilation)
    patches = F.unfold(data, kernel, dilation, padding, stride)[:, :, places]
    rows = how.features(data, places)
    assert torch.equal(rows, patches.transpose(1, 2).reshape(-1, weight[0].numel()))
    torch.testing.assert_close(rows @ weight.flatten(1).T, how.values(out, places), rtol=1e-4, atol=1e-4)


def test_rows_of_a_linear_layer_are_its_inputs():
    x = torch.randn(4, 5, 3)
    how = Layout()
    assert torch.equal(how.features(x, torch.arange(5)), x.reshape(20, 3))
    assert torch.equal(how.values(x, torch.arange(5)), x.reshape(20, 3))


@pytest.mark.parametrize(
    ("name", "refitted"), [("residual", 4), ("flatten", 2), ("separable", 4), ("shared conv", 3), ("tied", 2)]
)
def test_layers_with_weights_of_their_own_can_be_refitted(name, refitted):
    """Depthwise ones as well, but not those that share their weight or run twice."""
    affine = [n for n in traced(name).graph.operations if name_of(n) in ("conv2d", "linear")]
    assert sum(layout(n) is not None for n in affine) == refitted


@pytest.mark.parametrize(("features", "images"), [(9, 1), (9, 1000), (1000, 4)])
def test_places_are_distinct_inside_and_enough(features, images):
    places = sample_places(64, features, images, torch.Generator().manual_seed(0))
    assert len(places.unique()) == len(places) <= 64
    assert 0 <= int(places.min()) <= int(places.max()) < 64
    assert len(places) * images >= min(64 * images, ROWS_PER_FEATURE * features)
