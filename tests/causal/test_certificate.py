"""A certificate holds as often as it says, and is no wider than it must be."""

from math import comb

import numpy as np
import pytest
import torch
from scipy import stats

from tiny import batches, trained
from whyprune.effects.certificate import certified_changes, certified_drop, certify
from whyprune.errors import InputError
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace


def changes(count, found, fresh):
    return certified_changes(np.arange(count) < found, fresh_images=fresh)


def broken_shares(count, fresh):
    """Whether the bound on the fresh sample is broken, by what was found and what comes, (count + 1, fresh + 1)."""
    bounds = np.array([changes(count, found, fresh).fresh_bound_percent for found in range(count + 1)])
    return 100 * np.arange(fresh + 1) / fresh > bounds[:, None] + 1e-9


@pytest.mark.parametrize(("count", "fresh"), [(40, 40), (40, 7), (15, 60)])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.3, 0.5, 0.9, 1.0])
def test_both_bounds_on_changes_hold_together_as_often_as_they_must(count, fresh, share):
    """Over all outcomes of two binomials, weighted by their probability: no simulation."""
    at_large = np.array([changes(count, found, fresh).bound_percent for found in range(count + 1)]) < 100 * share - 1e-9
    first, second = (stats.binom.pmf(np.arange(n + 1), n, share) for n in (count, fresh))
    assert first @ (at_large[:, None] | broken_shares(count, fresh)) @ second <= 0.05
    assert first @ at_large <= 0.025


@pytest.mark.parametrize(("count", "fresh"), [(30, 30), (30, 9), (12, 40)])
def test_a_bound_on_a_fresh_sample_holds_for_every_sum_and_no_smaller_one_would(count, fresh):
    """Of a finite set of images, split at random, whatever it shows: counted, without a distribution at large."""
    broken = broken_shares(count, fresh)
    places = np.add.outer(np.arange(count + 1), np.arange(fresh + 1))
    ways = np.outer([comb(count, k) for k in range(count + 1)], [comb(fresh, k) for k in range(fresh + 1)])
    for total in range(count + fresh + 1):
        assert ways[broken & (places == total)].sum() <= 0.025 * ways[places == total].sum()
    bounds = (~broken).sum(axis=1) - 1
    for found, further in enumerate(bounds):
        if further > 0:  # one image less, for these or fewer found, and this sum would break it too often
            same = places == found + further
            fewer = same & (np.arange(count + 1)[:, None] <= found)
            assert ways[fewer].sum() > 0.025 * ways[same].sum()


@pytest.mark.parametrize(("lost", "won"), [(0.1, 0.02), (0.3, 0.3), (0.05, 0.0), (0.0, 0.4), (0.6, 0.4)])
def test_both_bounds_on_the_drop_hold_together_as_often_as_they_must(lost, won):
    """Over all outcomes of two trinomials: images that were lost, won, and neither."""
    count, fresh = 16, 12
    broken = 0.0
    further = list(outcomes(fresh, lost, won))
    for a, b, probability in outcomes(count, lost, won):
        kind = np.repeat([0, 1, 2], [a, b, count - a - b])
        found = certified_drop(kind != 1, kind != 0, fresh_images=fresh)
        at_large = found.bound_percent < 100 * (lost - won) - 1e-9
        limit = found.fresh_bound_percent + 1e-9
        broken += probability * sum(p for c, d, p in further if at_large or 100 * (c - d) / fresh > limit)
    assert broken <= 0.05


def outcomes(count, lost, won):
    """(how many were lost, how many won, with which probability)."""
    rates = [lost, won, max(0.0, 1 - lost - won)]
    for a in range(count + 1):
        for b in range(count + 1 - a):
            yield a, b, float(stats.multinomial.pmf([a, b, count - a - b], count, rates))


def test_a_fresh_sample_says_less_the_smaller_it_is_and_as_much_as_images_at_large_when_huge():
    at_large = changes(200, 20, None).bound_percent
    bounds = [changes(200, 20, fresh).fresh_bound_percent for fresh in (50, 200, 1000, 1_000_000)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] == pytest.approx(at_large, rel=1e-2)
    assert changes(200, 20, None).fresh_images == 200


def test_no_change_is_certified_up_to_what_the_number_of_images_allows():
    found = certified_changes(np.zeros(59, dtype=bool))
    assert found.measured_percent == 0
    assert found.bound_percent == pytest.approx(100 * (1 - 0.025 ** (1 / 59)))


def test_it_counts_what_the_networks_say():
    network = trace(trained(), batches(0, 2)[0][0])
    units = [u for g in network.groups for u in g.units[: len(g.units) // 2]]
    state = remove(State.of(network), units)
    data = batches(1000, 1400)
    x, y = torch.cat([a for a, _ in data]), torch.cat([b for _, b in data])
    with torch.no_grad():
        before, after = network.model(x).argmax(1), state.model(x).argmax(1)
    labelled, unlabelled = certify(state, data), certify(state, [x])
    drop = float((before == y).double().mean() - (after == y).double().mean())
    assert labelled.of == "accuracy drop"
    assert labelled.measured_percent == pytest.approx(100 * drop)
    assert unlabelled.of == "changed predictions"
    assert unlabelled.measured_percent == pytest.approx(100 * float((before != after).double().mean()))
    for found in (labelled, unlabelled):
        assert found.images == 400
        assert found.measured_percent < found.bound_percent < found.fresh_bound_percent
    narrow, wide = (certify(state, data, confidence=c).bound_percent for c in (0.8, 0.999))
    assert narrow < labelled.bound_percent < wide


def test_unusable_requests_are_refused():
    network = trace(trained(), batches(0, 2)[0][0])
    state = remove(State.of(network), [network.units[0]])
    with pytest.raises(InputError, match="no images to certify on"):
        certify(state, [])
    with pytest.raises(InputError, match="confidence is 95"):
        certify(state, batches(0, 8), confidence=95)
    with pytest.raises(InputError, match="some batches have labels"):
        certify(state, [*batches(0, 8), batches(0, 8)[0][0]])
    with pytest.raises(InputError, match="same images twice"):
        certified_drop(np.ones(3, dtype=bool), np.ones(4, dtype=bool))
    with pytest.raises(InputError, match="fresh_images is 0"):
        certify(state, batches(0, 8), fresh_images=0)
