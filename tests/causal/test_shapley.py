"""Shapley values are those of the definition, over all subsets; truncation and racing make them cheaper, not wrong."""

import numpy as np
import pytest

from causal.tables import planted_table, tiny_table
from whyprune.causal.masks.shapley import Orders, play, shapley, shapley_values
from whyprune.effects.intervals import by_cluster, moments, skew_corrected
from whyprune.errors import InputError
from whyprune.scoring.contract import Question
from whyprune.testing import planted

DRAWS = 200
PLAIN = {"tolerance": 0.0, "remove": 0}


def estimated(played):
    mean, error, skewness, samples = moments(by_cluster(played.values, played.images))
    return mean, skew_corrected(mean, error, skewness, samples)


@pytest.mark.parametrize("table", [tiny_table, planted_table])
def test_values_share_out_the_effect_of_all_units(table):
    """In every single pair of orders, on its image; and by the definition over all subsets."""
    table = table()
    everything = np.ones((table.images, len(table.units)), dtype=bool)
    whole = table.effects(everything, np.arange(table.images))
    assert table.shapley().sum() == pytest.approx(whole.mean(), rel=1e-9)
    played = play(table, Orders(pairs=table.images, **PLAIN))
    np.testing.assert_allclose(played.values.sum(axis=1), whole[played.images], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("table", [tiny_table, planted_table])
@pytest.mark.parametrize(
    "options",
    [{**PLAIN, "pairs": 64}, {"pairs": 256}, {"pairs": 256, "tolerance": 0.3, "patience": 1}],
    ids=["plain", "racing", "truncated"],
)
def test_intervals_cover_the_shapley_value_as_often_as_they_say(table, options):
    table = table()
    truth = table.shapley()
    hits, errors, costs = [], [], []
    for seed in range(DRAWS):
        drawn = table.drawn(options["pairs"], seed)
        played = play(drawn, Orders(seed=seed, **options))
        mean, (low, high) = estimated(played)
        assert not played.truncated
        hits.append((low - 1e-9 <= truth) & (truth <= high + 1e-9))
        errors.append(mean - truth)
        costs.append(drawn.forward_passes)
    moving = truth != 0
    assert 0.92 <= np.mean(hits, axis=0)[moving].mean() <= 0.98
    assert np.mean(hits, axis=0).min() >= 0.87
    bias = np.mean(errors, axis=0)[moving] / (np.std(errors, axis=0)[moving] / np.sqrt(DRAWS))
    assert np.abs(bias).max() < 4
    if "tolerance" not in options:
        assert np.mean(costs) < 0.97 * options["pairs"] * (2 * len(truth) + 1)


def test_the_papers_truncation_says_that_it_is_biased():
    table = planted_table()
    options = {"tolerance": 0.3, "patience": 1, "remove": 0, "pairs": 48}
    cut = play(table, Orders(survival=0.0, **options))
    assert cut.truncated
    spent = table.drawn(48, 0), table.drawn(48, 0)
    play(spent[0], Orders(survival=0.0, **options))
    play(spent[1], Orders(pairs=48, **PLAIN))
    assert spent[0].forward_passes < spent[1].forward_passes


def test_an_order_and_its_reverse_say_more_than_two_orders():
    """With pairs the variance of the mean is below that of as many independent orders, summed over units."""
    table = tiny_table()
    one_image = type(table)(table.units, table.values[:, :1], np.zeros(400, dtype=np.int64))
    paired = play(one_image, Orders(pairs=400, **PLAIN)).values.var(axis=0).sum()
    rng, sets = np.random.default_rng(0), 1 << np.arange(len(table.units))
    alone = []
    for _ in range(800):
        order = rng.permutation(len(table.units))
        harm = np.concatenate([[0.0], table.values[np.cumsum(sets[order]), 0]])
        alone.append(np.diff(harm)[np.argsort(order)])
    assert paired < 0.8 * np.var(alone, axis=0).sum() / 2


def test_the_race_finds_who_goes_and_stops_early():
    """The two without effect go; then everybody else is far away."""
    table = planted_table()
    right, cost = [], []
    for seed in range(20):
        drawn = table.drawn(400, seed)
        played = play(drawn, Orders(pairs=400, least=64, remove=3, seed=seed))
        lowest = set(np.argsort(moments(played.values)[0])[:3].tolist())
        right.append(lowest == set(np.argsort(table.shapley())[:3].tolist()))
        cost.append(drawn.forward_passes)
    assert np.mean(right) > 0.9
    assert np.mean(cost) < 0.7 * 400 * (2 * planted.UNITS + 1)


def test_the_network_itself_gives_what_the_enumeration_gives():
    """A cancelling pair may have values of either sign: removing one hurts until the other is gone, too."""
    case = planted.case(1, 48)
    found = shapley_values(case.network.ignoring(["left"]), [case.batch], Orders(pairs=288, **PLAIN))
    truth = planted_table().shapley()
    silent = [planted.DEAD, planted.BYSTANDER]
    assert np.abs(found.mean[silent]).max() < 1e-5
    assert truth[planted.COPY] == pytest.approx(truth[planted.OTHER_COPY], rel=1e-6)
    assert (np.abs(found.mean - truth) <= 4 * found.standard_error + 1e-5).all()
    assert found.mean.sum() == pytest.approx(truth.sum(), rel=1e-4)


@pytest.mark.parametrize("forward_passes", [100.0, 1000.0])
def test_the_budget_is_kept(forward_passes):
    case = planted.case(1)
    assert shapley(case.network, [case.batch], Question(forward_passes=forward_passes)).forward_passes <= forward_passes


def test_unusable_requests_are_refused():
    for wrong in ({"pairs": 1}, {"survival": 2.0}, {"confidence": 1.0}, {"tolerance": -1.0}):
        with pytest.raises(InputError):
            Orders(**wrong)
    case = planted.case(1)
    with pytest.raises(InputError, match="forward passes do not pay"):
        shapley(case.network, [case.batch], Question(forward_passes=20.0))
    with pytest.raises(InputError, match="units are to go"):
        shapley_values(case.network, [case.batch], Orders(remove=99))
