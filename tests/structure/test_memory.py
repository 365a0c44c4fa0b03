"""Peak memory by liveness is what running the network one operation at a time needs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from whyprune.structure.memory import living, peak_memory
from whyprune.structure.remove import remove
from whyprune.structure.trace import trace


def chain(widths, size=6):
    layers = []
    for inputs, outputs in zip((3, *widths), widths, strict=False):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * size * size, 5)).eval()


def held(model):
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


def needed(model, batch):
    """Of a chain: an input and an output live at a time; activations, norms and views write over their input."""
    x, most = torch.zeros(batch, 3, 6, 6), 0
    for layer in model:
        y = layer(x)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            most = max(most, 4 * (x.numel() + y.numel()))
        x = y
    return most + held(model)


@settings(max_examples=10)
@given(st.lists(st.integers(2, 9), min_size=1, max_size=4), st.integers(1, 3), st.data())
def test_a_chain_needs_two_neighbours_at_a_time(widths, batch, data):
    model = chain(widths)
    network = trace(model, torch.randn(2, 3, 6, 6))
    price = peak_memory(network, batch)
    assert price({}) == needed(model, batch)
    units = [u for g in network.groups for u in g.units[: data.draw(st.integers(0, len(g.units) - 1))]]
    pruned = remove(network, units)
    assert network.priced([price]).cost(units).memory == needed(pruned, batch)


class Kept(nn.Module):
    """The input of a block lives until the block's end."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 1, bias=False)
        self.second = nn.Conv2d(8, 2, 1, bias=False)
        self.third = nn.Conv2d(2, 8, 1, bias=False)

    def forward(self, x):
        x = self.first(x)
        return x + self.third(self.second(x))


def test_what_a_shortcut_needs_stays_alive():
    network = trace(Kept().eval(), torch.randn(2, 1, 4, 4))
    # The third layer runs while the shortcut (8), its input (2) and its output (8) live, on 16 places of 4 bytes.
    assert peak_memory(network)({}) == held(network.model) + 18 * 16 * 4


class Ended(nn.Module):
    """A value that nobody reads is gone at once, and constants are not at work."""

    def forward(self, x):
        _ = x.repeat(1, 50)
        return torch.cat([x, x], 1) + torch.arange(4.0)


def test_what_nobody_reads_lives_while_it_is_made():
    network = trace(nn.Sequential(Ended(), nn.Linear(4, 2)).eval(), torch.randn(2, 2))
    peaks = [sum(n.meta["val"].shape[1] for n in alive) for alive in living(network.graph).values()]
    assert max(peaks) in (2 + 100, 2 + 4)  # with the value that nobody reads, unless the capture left it out
    assert peaks[-1] == 4 + 2


@pytest.mark.parametrize("limit", [0.3, 0.6, 1.0])
def test_pressure_counts_all_that_is_above_a_limit(limit):
    network = trace(chain([8, 8, 8]), torch.randn(2, 3, 6, 6))
    price = peak_memory(network)
    bound = limit * price({})
    totals = [held(network.model) + step.bytes({}) for step in price.steps]
    above = sum(t - bound for t in totals if t > bound)
    assert price.pressure({}, bound) == pytest.approx(bound + above if above else max(totals))
