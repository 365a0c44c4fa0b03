"""A certificate holds as often as it says, and is no wider than it must be."""

import numpy as np
import pytest
import torch
from scipy import stats

from tiny import batches, trained
from whyprune.causal.certificate import certified_changes, certified_drop, certify
from whyprune.errors import InputError
from whyprune.structure.remove import remove
from whyprune.structure.trace import trace


@pytest.mark.parametrize(("share", "count"), [(0.02, 100), (0.3, 40), (0.0, 30)])
def test_the_bound_on_changes_covers_exactly_as_often_as_it_must(share, count):
    """Over all outcomes of a binomial, weighted by their probability: no simulation."""
    covered = 0.0
    for found in range(count + 1):
        flags = np.arange(count) < found
        holds = certified_changes(flags).bound_percent >= 100 * share - 1e-9
        covered += holds * stats.binom.pmf(found, count, share)
    assert covered >= 0.95


@pytest.mark.parametrize(("lost", "won"), [(0.1, 0.02), (0.3, 0.3), (0.05, 0.0)])
def test_the_bound_on_the_drop_is_broken_in_at_most_five_percent_of_draws(lost, won):
    rng = np.random.default_rng(0)
    broken = 0
    for _ in range(2000):
        kind = rng.choice(3, 200, p=[lost, won, 1 - lost - won])
        bound = certified_drop(kind != 1, kind != 0).bound_percent
        broken += bound < 100 * (lost - won)
    assert broken <= 2000 * 0.05


def test_no_change_is_certified_up_to_what_the_number_of_images_allows():
    found = certified_changes(np.zeros(59, dtype=bool))
    assert found.measured_percent == 0
    assert found.bound_percent == pytest.approx(100 * (1 - 0.05 ** (1 / 59)))


def test_it_counts_what_the_networks_say():
    network = trace(trained(), batches(0, 2)[0][0])
    units = [u for g in network.groups for u in g.units[: len(g.units) // 2]]
    pruned = remove(network, units)
    data = batches(1000, 1400)
    x, y = torch.cat([a for a, _ in data]), torch.cat([b for _, b in data])
    with torch.no_grad():
        before, after = network.model(x).argmax(1), pruned(x).argmax(1)
    labelled, unlabelled = certify(network, data, pruned, units), certify(network, [x], pruned, units)
    drop = float((before == y).double().mean() - (after == y).double().mean())
    assert labelled.of == "accuracy drop"
    assert labelled.measured_percent == pytest.approx(100 * drop)
    assert unlabelled.of == "changed predictions"
    assert unlabelled.measured_percent == pytest.approx(100 * float((before != after).double().mean()))
    for found in (labelled, unlabelled):
        assert found.images == 400
        assert found.measured_percent < found.bound_percent
    narrow, wide = (certify(network, data, pruned, units, confidence=c).bound_percent for c in (0.8, 0.999))
    assert narrow < labelled.bound_percent < wide


def test_unusable_requests_are_refused():
    network = trace(trained(), batches(0, 2)[0][0])
    units = [network.units[0]]
    pruned = remove(network, units)
    with pytest.raises(InputError, match="no images to certify on"):
        certify(network, [], pruned, units)
    with pytest.raises(InputError, match="confidence is 95"):
        certify(network, batches(0, 8), pruned, units, confidence=95)
    with pytest.raises(InputError, match="some batches have labels"):
        certify(network, [*batches(0, 8), batches(0, 8)[0][0]], pruned, units)
    with pytest.raises(InputError, match="same images twice"):
        certified_drop(np.ones(3, dtype=bool), np.ones(4, dtype=bool))
