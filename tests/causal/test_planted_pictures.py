"""The numbers behind the pictures are the estimands they are named after."""

from itertools import permutations

import numpy as np
import pytest

from whyprune.causal.masks.shapley import Orders, play
from whyprune.effects.intervals import by_cluster, moments, skew_corrected
from whyprune.interventions.worlds import Worlds
from whyprune.testing import planted

pictures = pytest.importorskip(
    "benchmarks.planted_pictures", reason="the project's root is on no path: use python -m pytest"
)


@pytest.fixture(scope="module")
def found():
    return pictures.measure(24)


def column(found, name):
    return np.array([row[name] for row in found["rows"]], dtype=float)


def test_averages_over_sets_are_averages_over_orders_and_draws():
    rng = np.random.default_rng(0)
    sets = [frozenset(np.flatnonzero([n >> k & 1 for k in range(4)]).tolist()) for n in range(16)]
    joint = {s: float(rng.normal()) * bool(s) for s in sets}
    orders = list(permutations(range(4)))
    for unit in range(4):
        gains = [joint[frozenset(o[: o.index(unit) + 1])] - joint[frozenset(o[: o.index(unit)])] for o in orders]
        assert pictures.shapley(joint, unit) == pytest.approx(np.mean(gains))
        assert pictures.context(joint, unit, 0.0) == pytest.approx(joint[frozenset({unit})])
        assert pictures.context(joint, unit, 1.0) == pytest.approx(
            joint[frozenset(range(4))] - joint[frozenset(set(range(4)) - {unit})]
        )
        half = [joint[s | {unit}] - joint[s] for s in sets if unit not in s]
        assert pictures.context(joint, unit, 0.5) == pytest.approx(np.mean(half))


def test_what_the_pictures_show_is_what_was_planted(found):
    assert column(found, "shapley").sum() == pytest.approx(found["joint_all"])
    np.testing.assert_allclose(column(found, "single"), column(found, "value_zero"), atol=1e-5)
    for name in ("single", "context", "shapley", "value_mean", "value_carried", "class_0"):
        assert abs(column(found, name)[[planted.DEAD, planted.BYSTANDER]]).max() < 1e-5
    copies, cancelling, _ = found["pairs"]
    assert copies["together"] > copies["first"] + copies["second"]
    assert abs(cancelling["together"]) < 1e-5 < min(cancelling["first"], cancelling["second"])


def test_estimators_agree_with_all_sets_run(found):
    case = planted.case(1, 24)
    worlds = Worlds(case.network, [case.batch], units=[case.unit(k) for k in pictures.NAMES])
    played = play(worlds, Orders(pairs=240, remove=0))
    low, high = skew_corrected(*moments(by_cluster(played.values, played.images)))
    truth = column(found, "shapley")
    assert ((low - 1e-5 <= truth) & (truth <= high + 1e-5)).mean() >= 0.85
