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
from allocation.test_knapsack import Staircase
from structure.networks import traced
from whyprune.allocation import Space, along_curves
from whyprune.allocation.constraints import Constraints
from whyprune.allocation.increments import Increments
from whyprune.allocation.search import Search
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
    """A space, bounds of some kinds, and points within its limits, one after another."""
    network = priced(draw(st.sampled_from(NAMES)), draw(st.booleans()))
    multiple = draw(st.sampled_from([1, 2, 3]))
    constraints = Constraints(round_to=multiple) if multiple > 1 else None
    space = Space(network, constraints, kinds=("width", "block"))
    dense = network.cost()
    kinds = draw(st.sets(st.sampled_from(KINDS), min_size=1))
    limits = {kind: draw(st.floats(0.2, 1)) * getattr(dense, kind) for kind in sorted(kinds)}
    walk = []
    for _ in range(draw(st.integers(1, 6))):
        wanted = {name: draw(st.integers(0, len(group.units))) for name, group in space.bounds.groups.items()}
        blocks = draw(st.sets(st.sampled_from(sorted(space.inside)))) if space.inside else ()
        widths = space.bounds.rounded(space.bounds.filled(wanted))
        walk.append({**widths, **{name: int(name in blocks) for name in space.inside}})
    return space, limits, walk


@settings(max_examples=100, deadline=None)
@given(walks())
def test_costs_are_those_of_the_whole_network(case):
    space, limits, walk = case
    costs = Increments(space, limits)
    for point in walk:
        rounded = space.rounded(point)
        whole = space.cost(rounded)
        assert costs.amounts(point) == {kind: getattr(whole, kind) for kind in limits}
        pressures = {kind: space.pressure(kind, rounded, limit) / limit for kind, limit in limits.items()}
        assert costs.pressures(point) == pressures


@settings(max_examples=60, deadline=None)
@given(walks(), st.data())
def test_moves_change_the_same_wherever_what_is_near_is_the_same(case, data):
    space, limits, walk = case
    limits = {kind: limit for kind, limit in limits.items() if kind != "memory"} or {"macs": 1.0}
    curves = some_effects(space.network).curves
    search = Search(space, along_curves(space, curves, blocks=dict.fromkeys(space.inside, 1.0)), limits)
    groups = space.bounds.groups
    first, second = (
        {name: min(point[name], len(group.units) - 1) for name, group in groups.items()}
        | {block: data.draw(st.integers(0, 1)) for block in space.inside}
        for point in (walk[0], walk[-1])
    )
    name = data.draw(st.sampled_from(sorted(search.stops)))
    changes = []
    for point in (first, {n: first[n] if n in search.near[name] else stop for n, stop in second.items()}):
        search.point = point
        moves = [*search.moves_of(name, ahead=True), *search.moves_of(name, ahead=False)]
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
