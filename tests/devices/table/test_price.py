"""The price of a network is the sum of its layers' rows, wherever the table knows them, and never a step too low."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tiny
from devices.made_up_device import MadeUp
from whyprune.devices.table import LatencyTable, latency_price, tabulated_layers
from whyprune.devices.table.price import multiple_for
from whyprune.devices.table.rows import Row
from whyprune.structure.remove import remove
from whyprune.structure.trace import trace


class Mixed(nn.Module):
    """A depthwise layer, one in groups, one over rows alone, and a flattened head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.depth = nn.Conv2d(12, 12, 5, padding=2, groups=12)
        self.mix = nn.Conv2d(12, 16, 1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=4)
        self.head = nn.Linear(16 * 16, 5)

    def forward(self, x):
        x = torch.relu(self.depth(torch.relu(self.stem(x))))
        return self.head(torch.relu(self.grouped(torch.relu(self.mix(x)))).flatten(1))


@pytest.fixture(scope="module", params=["residual", "mixed"])
def network(request):
    torch.manual_seed(0)
    if request.param == "residual":
        return trace(tiny.trained(), tiny.digits()[0][:2])
    return trace(Mixed().eval(), torch.randn(2, 3, 8, 8))


def gone_of(units):
    gone = {}
    for unit in units:
        for piece in unit.slices:
            gone[piece.parameter, piece.axis] = gone.get((piece.parameter, piece.axis), 0) + len(piece.indices)
    return gone


def removals(network):
    """Any removal that leaves one unit of every group."""
    return st.tuples(*(st.integers(0, len(g.units) - 1) for g in network.groups)).map(
        lambda counts: [u for g, n in zip(network.groups, counts, strict=True) for u in g.units[:n]]
    )


@settings(max_examples=15)
@given(st.data())
def test_rows_are_the_layers_of_the_pruned_network(network, data):
    units = data.draw(removals(network))
    rows = [layer.row(gone_of(units)) for layer in tabulated_layers(network, batch=1)]
    assert sum(row.macs for row in rows) == network.cost(units).macs
    pruned = [m for m in remove(network, units).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert [(r.outputs, r.inputs // r.groups) for r in rows] == [tuple(m.weight.shape[:2]) for m in pruned]
    assert [r.groups for r in rows] == [getattr(m, "groups", 1) for m in pruned]


@settings(max_examples=15)
@given(st.data())
def test_a_table_with_every_row_prices_exactly(network, data):
    device, layers = MadeUp(), tabulated_layers(network)
    device.call_ms = device.time_ms(network.model) / 2
    dense = device.time_ms(network.model)
    units = data.draw(removals(network))
    table = LatencyTable(device)
    price = latency_price(network, table, layers, dense, fastest=dense)
    table.fill(layer.row(gone_of(units)) for layer in layers)
    assert price(gone_of(units)) == pytest.approx(device.time_ms(remove(network, units)))


@settings(max_examples=15)
@given(st.data())
def test_stops_alone_price_exactly_where_rows_multiply(network, data):
    """MadeUp's do, at steps of its own; a width between two stops costs what the next one does."""
    device, layers = MadeUp(step=4), tabulated_layers(network)
    price = latency_price(network, LatencyTable(device), layers, 1.0)
    units = data.draw(removals(network))
    assert price.rows_ms(gone_of(units)) == pytest.approx(device.time_ms(remove(network, units)))


def test_a_measured_ratio_is_what_the_corrected_price_gives(network):
    device = MadeUp()
    price = latency_price(network, LatencyTable(device), tabulated_layers(network), 3.0)
    gone = gone_of([u for g in network.groups for u in g.units[: len(g.units) // 2]])
    corrected = price.corrected(gone, 0.9)
    assert corrected(gone) == pytest.approx(2.7)
    assert corrected({}) == pytest.approx(3.0)


@given(st.integers(1, 4096))
def test_stops_are_few_and_multiples_of_four(size):
    multiple = multiple_for(size)
    assert multiple % 4 == 0
    assert size // multiple <= 2 * 16


def test_rows_know_their_macs():
    row = Row("conv", 6, 8, (3, 3), (2, 2), (1, 1), (1, 1), 2, (9, 7), batch=3)
    layer = nn.Conv2d(6, 8, 3, 2, 1, groups=2)
    y = layer(torch.zeros(3, 6, 9, 7))
    assert row.macs == y.numel() * layer.weight[0].numel()
    assert row.result == tuple(y.shape[2:])
