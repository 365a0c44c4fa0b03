"""Contingency sets against brute force over all sets, on events of every kind."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whyprune.causal.responsibility.contingency import Contingency, search
from whyprune.errors import InputError


def answered(searching, slack):
    """Runs a search against `slack(set of units)`; returns what it found and how many sets it asked about."""
    asked, reply = 0, None
    while True:
        try:
            masks = next(searching) if reply is None else searching.send(reply)
        except StopIteration as done:
            return done.value, asked
        asked += len(masks)
        reply = np.array([slack(frozenset(np.flatnonzero(m).tolist())) for m in masks])


def smallest(units, slack):
    """The size of the smallest contingency set of every unit that has one, by trying all sets."""
    found = {}
    for f in range(units):
        others = [g for g in range(units) if g != f]
        for size in range(units):
            sets = [frozenset(s) for s in combinations(others, size)]
            if any(slack(w) > 0 >= slack(w | {f}) for w in sets):
                found[f] = size
                break
    return found


def table(units, numbers):
    """An event with any truth table: slack by set; it holds when nothing is out."""
    sets = [frozenset(s) for size in range(units + 1) for s in combinations(range(units), size)]
    slacks = dict(zip(sets, numbers, strict=True))
    slacks[frozenset()] = 1.0
    return slacks.__getitem__


slacks = st.floats(-1, 1).map(lambda x: 0.1 if abs(x) < 1e-3 else x)
UNITS = 6


@settings(max_examples=150, deadline=None)
@given(st.lists(slacks, min_size=2**UNITS, max_size=2**UNITS), st.sampled_from([0, 1, 2]), st.sampled_from([0, 3]))
def test_any_event(numbers, exact, rounds):
    """Every set found is a contingency set, none is too small to be true, and all small ones are found."""
    slack = table(UNITS, numbers)
    found, _ = answered(search(UNITS, 1.0, Contingency(exact=exact, rounds=rounds)), slack)
    truth = smallest(UNITS, slack)
    assert found.keys() <= truth.keys()
    for f, others in found.items():
        w = frozenset(others)
        assert f not in w
        assert slack(w) > 0 >= slack(w | {f})
        assert len(others) >= truth[f]
        if len(others) <= exact + 1:
            assert len(others) == truth[f]
    assert all(len(found[f]) == k for f, k in truth.items() if k <= exact)


def additive(weights, threshold):
    return lambda gone: threshold - sum(weights[f] for f in gone)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=5, max_size=7), st.integers(1, 30))
def test_where_harm_adds_up_greedy_sets_are_close(weights, threshold):
    """And the first round's are exact for the most harmful unit that does not decide alone."""
    slack = additive(weights, threshold)
    found, _ = answered(search(len(weights), slack(frozenset()), Contingency(exact=0, rounds=0)), slack)
    assert found.keys() == {f for f, w in enumerate(weights) if w >= threshold}
    found, _ = answered(search(len(weights), slack(frozenset()), Contingency(exact=0)), slack)
    truth = smallest(len(weights), slack)
    open_units = [f for f in range(len(weights)) if weights[f] < threshold]
    if open_units:
        top = max(open_units, key=lambda f: weights[f])
        assert (top in found) == (top in truth)
        assert top not in truth or len(found[top]) == truth[top]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sets(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=4))
def test_for_events_that_never_come_back_one_over_one_plus_k_is_one_over_the_smallest_conjunctive_cause(ways):
    """Halpern's modified definition: a part of X, minimal among the sets that end the event, has 1 / |X|."""

    def slack(gone):
        return 0.0 if any(way <= gone for way in ways) else 1.0

    minimal = [w for w in ways if not any(v < w for v in ways)]
    expected = {f: min(len(w) for w in minimal if f in w) - 1 for f in range(6) if any(f in w for w in minimal)}
    assert smallest(6, slack) == expected
    found, _ = answered(search(6, 1.0, Contingency(exact=2)), slack)
    assert found.keys() <= expected.keys()
    assert all({*w, f} in minimal for f, w in found.items() if len(w) > 2)  # nothing in it can be left out
    assert {f: len(w) for f, w in found.items() if len(w) <= 2} == {f: k for f, k in expected.items() if k <= 2}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sets(st.integers(0, 7), min_size=1, max_size=5), min_size=1, max_size=5), st.integers(0, 40))
def test_fewer_runs_find_the_same_where_the_event_never_comes_back(ways, thorough):
    def slack(gone):
        return (0.0 if any(way <= gone for way in ways) else 1.0) - 1e-6 * sum(gone)

    whole, _ = answered(search(8, 1.0, Contingency(exact=0, thorough=10**6)), slack)
    few, _ = answered(search(8, 1.0, Contingency(exact=0, thorough=thorough)), slack)
    assert {f: len(w) for f, w in few.items()} == {f: len(w) for f, w in whole.items()}


def test_nothing_causes_what_does_not_hold_and_greedy_cost_is_bounded():
    assert answered(search(5, -0.1, Contingency()), lambda _: 1 / 0) == ({}, 0)
    slack = additive([1.0] * 200, 10.5)
    found, asked = answered(search(200, 10.5, Contingency(thorough=500)), slack)
    assert {len(w) for w in found.values()} == {10}
    assert len(found) == 200
    assert asked < 200 * (2 + 3 * 10)
    slack = additive([1.0] * 5 + [0.0] * 195, 4.5)
    found, asked = answered(search(200, 4.5, Contingency(thorough=500)), slack)
    assert {f: len(w) for f, w in found.items()} == dict.fromkeys(range(5), 4)
    assert asked < 4 * 200


def test_added_effects_are_taken_as_the_paper_s_code_does():
    harm = [0.5, 0.3, 0.2, -0.1, 0.0]

    def sizes(threshold):
        searching = search(5, threshold, Contingency(additive=True))
        return {f: len(w) for f, w in answered(searching, additive(harm, threshold))[0].items()}

    assert sizes(0.25) == {0: 0, 1: 0}  # 0.2 alone is below; only effects below the threshold are added to it
    assert sizes(0.6) == {0: 1, 1: 1, 2: 1}
    assert sizes(0.9) == {0: 2, 1: 2, 2: 2}
    assert sizes(1.1) == {}


def test_unusable_options_are_refused():
    with pytest.raises(InputError, match="not 3"):
        Contingency(exact=3)
    with pytest.raises(InputError, match="negative"):
        Contingency(largest=-1)
