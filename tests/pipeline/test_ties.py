"""A criterion that cannot tell units apart says so in the report."""

import pytest
import torch
from torch import nn

import whyprune as wp
from whyprune.effects.effects import from_scores
from whyprune.pipeline.ties import said_of_ties
from whyprune.structure.trace import trace

VECTORS = torch.randn(64, 5, generator=torch.Generator().manual_seed(1))


def pruned(method):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 8), nn.Sigmoid(), nn.Linear(8, 6), nn.Sigmoid(), nn.Linear(6, 3)).eval()
    settings = wp.Settings(latency=False, refute=False, views=1, effect_images=16, effect_passes=0)
    about = {"example_inputs": VECTORS[:2], "settings": settings, "progress": False}
    return wp.prune(model, [VECTORS], budget=wp.Budget(macs=0.7), method=method, **about).measurements.notes


def test_where_a_criterion_gives_one_score_to_all_units_their_order_decides_and_a_note_says_so():
    """A map of one number has rank 1 wherever it is not zero."""
    said = [note for note in pruned("hrank") if "one score" in note]
    assert said == [
        "'hrank' gives all units of 0 (8 units), 2 (6 units) one score: which of them go was decided by their order "
        "alone."
    ]
    assert not [note for note in pruned("magnitude-l2") if "one score" in note]


@pytest.mark.parametrize("gone", [0, 1, 7, 8])
def test_where_all_or_none_of_a_group_go_no_order_decides(gone):
    network = trace(nn.Sequential(nn.Linear(5, 8), nn.Sigmoid(), nn.Linear(8, 3)).eval(), VECTORS[:2])
    effects = from_scores(network.units, [1.0] * 8, method="mine")
    said = said_of_ties(effects, "mine", [unit.name for unit in network.units[:gone]])
    assert bool(said) == (0 < gone < 8)
