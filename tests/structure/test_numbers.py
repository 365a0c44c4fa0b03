"""Numbers in a pruned model's code are read, not guessed from outputs: what cannot be seen there is told as well."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from networks import CASES, CLASSES, randomised, traced, vector
from removal_property import assert_close, fresh_batch, output, removals
from torch import nn
from wide_attention import ClassicQkv

from whyprune.structure.numbers import telling_removals, wrong_numbers
from whyprune.structure.remove import masked, remove
from whyprune.structure.trace import trace


class Parts(nn.Module):
    """The first third of the channels is scaled; how many that are is a constant, an attribute or found out."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.third = how, 2
        self.one, self.two, self.head = nn.Linear(5, 6), nn.Linear(6, 7), nn.Linear(7, CLASSES)

    def forward(self, x):
        x = F.relu(self.one(x))
        third = {"constant": 2, "attribute": self.third, "shape": x.shape[1] // 3}[self.how]
        x = torch.cat([x[:, :third] * 3, x[:, third:]], 1)
        return self.head(F.relu(self.two(x)))


def dead(how: str) -> nn.Module:
    """On inputs of zero all channels between are zero: no output shows what is done to them."""
    model = randomised(Parts(how))
    with torch.no_grad():
        model.one.bias.copy_(-model.one.bias.abs() - 0.1)
    return model


@pytest.mark.parametrize(("how", "units"), [("constant", 0), ("attribute", 0), ("shape", 2)])
def test_a_number_whose_effect_no_example_shows_is_not_taken_on_trust(how, units):
    network = trace(dead(how), torch.zeros(3, 5))
    assert sum(u.group == "one" for u in network.units) == units
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(3))
    for removal in removals(network, singles=9):
        with torch.no_grad():
            assert_close(remove(network, removal)(x), masked(network, removal)(x))


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.removable])
def test_all_numbers_of_a_traced_network_follow_removals_that_every_site_counts(name):
    network = traced(name)
    found = telling_removals(network, seed=5)
    ever = {u.label for units in found for u in units}
    assert all(not ever.isdisjoint(s.labels.tolist()) for s in network.sites if can_count(network, s))
    for units in found:
        gone = {u.label for u in units}
        assert wrong_numbers(network, units) == []
        assert all(any(u.label not in gone for u in group.units) for group in network.groups)


def can_count(network, site):
    """Whether a site counts units of a group from which one may go and one may stay."""
    large = {u.label for g in network.groups if len(g.units) > 1 for u in g.units}
    return not large.isdisjoint(site.labels.tolist())


def test_a_wrong_attribute_is_read_off():
    network = trace(randomised(Parts("attribute")), vector(5))
    (units,) = telling_removals(network)
    assert wrong_numbers(network, units) == []
    wrong = wrong_numbers(replace(network, attributes=()), units)
    assert {s.value for s in wrong} == {2}


class Twins(nn.Module):
    """Equally wide layers one behind the other, each viewed by its shape."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(5 if i == 0 else width, width) for i in range(count))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x):
        for layer in self.layers:
            x = F.relu(layer(x))
            x = x.view(x.shape[0], x.shape[1])
        return self.head(x)


@pytest.mark.parametrize(("count", "width"), [(2, 2), (3, 2), (4, 3), (5, 4), (3, 9)])
def test_any_two_groups_of_a_size_lose_different_numbers_in_some_removal(count, width):
    network = trace(randomised(Twins(count, width)), vector(5))
    assert len(network.groups) == count
    lost = [
        tuple(sum(u.group == group.name for u in units) for units in telling_removals(network))
        for group in network.groups
    ]
    assert len(set(lost)) == count
    assert all(sum(codes) > 0 for codes in lost)


class Stream(nn.Module):
    """One head as wide as the stream, from whose width the code computes the head's."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mixer, self.head = nn.Linear(5, 6), ClassicQkv(6, 1, 6, False), nn.Linear(6, CLASSES)

    def forward(self, x):
        x = self.embed(x)
        return self.head((x + self.mixer(x)).mean(1))


def test_two_groups_of_a_width_that_lose_equally_much_do_not_hide_that_they_hang_together():
    network = trace(randomised(Stream()), vector(6, 5))
    batch = fresh_batch(network)
    assert network.units
    for unit in network.units:
        assert_close(output(remove(network, [unit]), batch), output(masked(network, [unit]), batch))
