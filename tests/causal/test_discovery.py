"""The algorithms find a graph that is there to be found; in a network they are held against its own wiring."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

pytest.importorskip("causallearn", reason="the extra `causal` is not installed")

from tiny import batches, digits, trained
from whyprune.causal.fitted.discovered import Search, adjusted, discovery, network_graph
from whyprune.causal.fitted.discovery import ALGORITHMS, DiscoveredGraph, discover
from whyprune.data.batches import as_batches
from whyprune.errors import InputError
from whyprune.scoring.contract import Question
from whyprune.structure.trace import trace
from whyprune.testing import planted
from whyprune.testing.planted import DEAD

NAMES, TIER = tuple("abcde"), (0, 1, 0, 2, 3)
WEIGHTS = {(0, 1): 0.9, (1, 3): 0.8, (2, 3): -0.9, (3, 4): 0.9}


@cache
def equations(gaussian=False, rows=1500):
    """a -> b -> d -> e, c -> d."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((rows, 5)) if gaussian else rng.laplace(size=(rows, 5))
    for (source, target), weight in WEIGHTS.items():
        noise[:, target] += weight * noise[:, source]
    return noise


def wired():
    found = np.zeros((5, 5), dtype=bool)
    for edge in WEIGHTS:
        found[edge] = True
    return found


@pytest.mark.parametrize("tiers", [None, TIER], ids=["no order", "in order"])
@pytest.mark.parametrize("method", ALGORITHMS)
def test_a_graph_that_is_there_is_found(method, tiers):
    found = replace(discover(equations(), NAMES, method, tier=tiers), wired=wired())
    assert found.precision == found.recall == 1
    assert found.chance == pytest.approx(0.4)
    assert found.direction_accuracy == 1
    if tiers is not None or "lingam" in method:
        assert set(found.edges) == {("a", "b"), ("b", "d"), ("c", "d"), ("d", "e")}


@pytest.mark.parametrize("method", ["pc", "fci", "direct-lingam"])
def test_the_order_goes_into_the_search_itself(method):
    """Gaussian noise: a chain has no direction that data could tell."""
    chain = equations(gaussian=True)[:, [4, 0, 3, 1]]
    order = np.array([3, 0, 2, 1])
    found, lines = ALGORITHMS[method](chain, order, 0.01, 2, 0)
    source, target = np.nonzero(found)
    assert (order[source] < order[target]).all()
    assert found[1, 3]
    assert found[2, 0]
    assert not lines.any()


def test_constant_columns_and_exact_copies_do_not_stop_it():
    table = np.column_stack([equations(), np.zeros(1500), equations()[:, 0]])
    found = discover(table, [*NAMES, "dead", "copy"], "pc")
    assert not found.arrows[5].any()
    assert not found.arrows[:, 5].any()
    assert found.arrows[0, 6] or found.arrows[6, 0] or found.lines[0, 6]


@cache
def graph(method, regime, tiers):
    network = trace(trained(), digits()[0][:2])
    data = list(as_batches(batches(1000, 1400)))
    return network_graph(network, data, Question(), Search(method, regime, tiers, rows=1000, images=400, most=14))


def test_the_networks_own_wiring_is_what_is_compared_with():
    found = graph("pc", "masked", True)
    sizes = {t: int((found.tier == t).sum()) for t in range(4)}
    read = sizes[0] * sizes[1] + sizes[1] * sizes[2] + sizes[2] * sizes[3]
    assert found.wired.sum() == read + sizes[0]  # the stream passes by the block, part by part
    assert found.direction_accuracy == 1
    assert 0 < found.recall < 1


def test_a_finding_runs_as_they_are_show_the_wiring_no_better_than_chance():
    for method in ("pc", "ica-lingam"):
        seen = graph(method, "observational", False)
        assert seen.precision < seen.chance + 0.1
    assert graph("ica-lingam", "masked", False).direction_accuracy > 0.7


def test_adjustment_on_the_graph_gives_linear_effects():
    case = planted.case(1)
    found = discovery(case.network, [case.batch], Question())
    assert found.mean[DEAD] == 0
    assert np.argmax(found.mean) == np.argmax([0] * 13 + [1])  # `left:4`, by far the largest effect


def test_slopes_are_those_of_the_equations_and_nothing_without_a_path():
    class Five:
        names, titles, here = NAMES[:4], NAMES[:4], (np.array([0, 2]), np.array([1]), np.array([3]))

    arrows = wired()
    arrows[2, 3] = False
    order = [0, 2, 1, 3]  # variables lie site by site
    found = DiscoveredGraph("pc", NAMES, arrows[np.ix_([*order, 4], [*order, 4])], np.zeros((5, 5), bool), np.zeros(5))
    slopes = adjusted(found, equations(rows=20000)[:, [*order, 4]], Five())
    np.testing.assert_allclose(slopes, [0.9 * 0.8 * 0.9, 0, 0.8 * 0.9, 0.9], atol=0.03)


def test_what_cannot_be_used_is_refused():
    with pytest.raises(InputError, match="no algorithm 'oracle'"):
        discover(equations(), NAMES, "oracle")
    with pytest.raises(InputError, match="not known"):
        _ = discover(equations(), NAMES, "pc").precision
