"""A network that runs on batches of one size is pruned on such batches: cuts go between them, never through one."""

import pytest
import torch
from torch import nn

import whyprune as wp
from whyprune.data.batches import Batch, chunked, cut_images, split_images
from whyprune.errors import InputError

SIZE = 8
IMAGES = torch.randn(3 * SIZE, 3, 6, 6, generator=torch.Generator().manual_seed(1))
BATCHES = list(IMAGES.split(SIZE))
SETTINGS = wp.Settings(latency=False, refute=False, views=1, effect_images=16, effect_passes=0)


class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3)
        self.head = nn.Linear(20, 4)

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))).view(SIZE, -1))


def pruned(batches, method="magnitude-l2"):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Fixed().eval()
    about = {"budget": wp.Budget(macs=0.7), "settings": SETTINGS, "progress": False}
    return wp.prune(model, batches, example_inputs=BATCHES[0], method=method, **about)


@pytest.mark.parametrize("method", ["magnitude-l2", "causal-filter-similarity"])
def test_a_network_of_one_batch_size_is_pruned_refitted_and_measured_on_such_batches(method):
    found = pruned(BATCHES, method)
    assert found.measurements.verify.max_abs_difference <= found.measurements.verify.tolerance
    assert found.model(BATCHES[0]).shape == (SIZE, 4)


def test_batches_of_another_size_and_a_single_one_are_one_message():
    with pytest.raises(InputError, match=r"only runs on batches of 8, not of 5, .* drop_last=True .* x\.flatten"):
        pruned([*BATCHES, IMAGES[:5]])
    with pytest.raises(InputError, match=r"one batch of 8, the only size .* give two such batches or more"):
        pruned(BATCHES[:1])


@pytest.mark.parametrize("wanted", range(26))
def test_whole_batches_are_never_cut_and_none_is_lost(wanted):
    whole = [Batch((x,), {}, torch.full((len(x),), k), whole=True) for k, x in enumerate(BATCHES)]
    first, rest = cut_images(whole, wanted)
    assert [b.labels[0].item() for b in (*first, *rest)] == [0, 1, 2]
    assert {len(b) for b in (*first, *rest)} == {SIZE}
    assert len(first) == (max(wanted // SIZE, 1) if wanted else 0)
    assert [len(b) for b in chunked(whole, 5)] == [SIZE] * 3
    assert [len(part) for part in split_images(whole)] == [2, 1]
    assert not whole[0][slice(0, 4)].whole
