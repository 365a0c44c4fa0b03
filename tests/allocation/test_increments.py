"""Costs that follow changes equal those computed from nothing, whatever the order of the counts that were asked for."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from allocation.made_up import some_effects
from allocation.test_constrained import shared_axis
from allocation.test_stairs import Staircase
from structure.networks import traced
from whyprune.allocation import Room
from whyprune.allocation.constraints import Constraints
from whyprune.allocation.increments import Increments
from whyprune.allocation.stairs import Stairs
from whyprune.devices.table.price import LatencyPrice, axes_of, stops_of
from whyprune.devices.table.rows import tabulated_layers
from whyprune.structure.memory import peak_memory
from whyprune.structure.parts import Summed, summed
from whyprune.structure.trace import trace


class Bottleneck(nn.Module):
    """A block that is the identity without its branch: after a ReLU another one changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        parts = [nn.Conv2d(6, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 6, 1)]
        self.branch = nn.Sequential(*parts)

    def forward(self, x):
        return torch.relu(x + self.branch(x))


@cache
def blocks():
    """Two residual blocks with two groups each inside."""
    torch.manual_seed(0)
    stem = (nn.Conv2d(3, 6, 3), nn.ReLU())
    model = nn.Sequential(*stem, Bottleneck(), Bottleneck(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    network = trace(model.eval(), torch.randn(2, 3, 8, 8))
    assert [len(block.groups) for block in network.blocks] == [2, 2]
    return network


NAMES = ("blocks", "residual", "concat", "grouped", "pad shortcut", "flatten", "shared axis")
KINDS = ("macs", "params", "bytes", "latency", "energy", "memory")


@cache
def priced(name, plain=False):
    """Rows of made-up times that no width orders; `plain` prices know no parts."""
    made = {"shared axis": shared_axis, "blocks": blocks}
    network = made[name]() if name in made else traced(name)
    layers, rng = tabulated_layers(network, 2), np.random.default_rng(0)
    sizes = axes_of(network, layers)
    multiples = {axis: 1 + number % 3 for number, axis in enumerate(sizes)}
    times = {row: rng.gamma(2.0) for row in stops_of(layers, sizes, multiples)}
    latency = LatencyPrice(layers, times, sizes, multiples, dense=3.0, share=0.7, blocks=network.blocks)
    energy = LatencyPrice(layers, times, sizes, multiples, dense=50.0, share=0.9, kind="energy", blocks=network.blocks)
    shapes = network.cost.shapes
    return network.priced([Staircase(shapes, {}) if plain else latency, energy, peak_memory(network, 2)])


@st.composite
def walks(draw):
    """A room, bounds of some kinds, and counts within its limits, one after another."""
    network = priced(draw(st.sampled_from(NAMES)), draw(st.booleans()))
    multiple = draw(st.sampled_from([1, 2, 3]))
    room = Room(network, constraints=Constraints(round_to=multiple) if multiple > 1 else None)
    dense = network.cost()
    kinds = draw(st.sets(st.sampled_from(KINDS), min_size=1))
    limits = {kind: draw(st.floats(0.2, 1)) * getattr(dense, kind) for kind in sorted(kinds)}
    walk = []
    for _ in range(draw(st.integers(1, 6))):
        wanted = {name: draw(st.integers(0, len(group.units))) for name, group in room.groups.items()}
        emptied = draw(st.sets(st.sampled_from(sorted(room.blocks)))) if room.blocks else ()
        walk.append({**room.fill(wanted), **room.emptied(emptied)})
    return room, limits, walk


@settings(max_examples=100, deadline=None)
@given(walks())
def test_costs_are_those_of_the_whole_network(case):
    room, limits, walk = case
    costs = Increments(room, limits)
    for counts in walk:
        settled = room.settled(counts)
        whole = room.cost(settled)
        assert costs.amounts(counts) == {kind: getattr(whole, kind) for kind in limits}
        pressures = {kind: room.pressure(kind, settled, limit) / limit for kind, limit in limits.items()}
        assert costs.pressures(counts) == pressures


@settings(max_examples=60, deadline=None)
@given(walks(), st.data())
def test_moves_change_the_same_wherever_what_is_near_is_the_same(case, data):
    room, limits, walk = case
    limits = {kind: limit for kind, limit in limits.items() if kind != "memory"} or {"macs": 1.0}
    curves = some_effects(room.network).curves
    stairs = Stairs(room, curves, limits, dict.fromkeys(room.blocks, 1.0))
    first, second = (
        {name: min(counts[name], len(room.groups[name].units) - 1) for name in counts}
        | {block: data.draw(st.integers(0, 1)) for block in room.blocks}
        for counts in (walk[0], walk[-1])
    )
    name = data.draw(st.sampled_from(sorted(stairs.stops)))
    changes = []
    for gone in (first, {n: first[n] if n in stairs.near[name] else count for n, count in second.items()}):
        stairs.gone = gone
        moves = [*stairs.moves_of(name, ahead=True), *stairs.moves_of(name, ahead=False)]
        changes.append({m.stop: [m.effect, *m.costs.values()] for m in moves})
    assert changes[0].keys() == changes[1].keys()
    for stop, change in changes[0].items():
        assert change == pytest.approx(changes[1][stop], abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_prices_from_tables_and_formulas_name_their_parts(name):
    network = priced(name)
    for kind in KINDS[:-1]:
        assert isinstance(summed(network.cost, kind), Summed)
    assert summed(network.cost, "memory") is None
