"""No scorer is wrong on a planted case where it claims anything, and the matrix can tell when one is."""

from dataclasses import replace

import numpy as np
import pytest

from scoring.test_scorers import NEEDS
from whyprune.errors import MissingDependencyError
from whyprune.scoring.registry import SCORERS
from whyprune.testing import planted
from whyprune.testing.matrix import CASES, NO_CLAIM, OFF, RIGHT, WRONG, ordinary, planted_outcomes, truth


@pytest.mark.parametrize("name", [*SCORERS])
def test_no_scorer_is_wrong_where_it_claims(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason="the extra `causal` is not installed")
    try:
        found = planted_outcomes(SCORERS(name))
    except MissingDependencyError as error:
        pytest.skip(str(error))
    assert set(found) == set(CASES)
    assert WRONG not in found.values(), found


def test_exact_effects_are_right_on_every_case():
    assert set(planted_outcomes(SCORERS("exact")).values()) == {RIGHT}


def test_what_each_estimand_says_of_each_case_is_true():
    """The table in the module's docstring, by enumeration."""
    table = truth(preemption=False)
    for effects in (table.single(), table.context(0.05), table.shapley()):
        assert effects[planted.COPY] == pytest.approx(effects[planted.OTHER_COPY], rel=1e-4)
        assert np.abs(effects[[planted.DEAD, planted.BYSTANDER]]).max() < 1e-5
    for effects in (table.single(), table.context(0.05)):
        assert effects[[planted.COPY, planted.PLUS, planted.MINUS]].min() > 0.01
    backup = truth(preemption=True)
    pair = [planted.PRIMARY, planted.BACKUP]
    assert np.abs(backup.single()[pair]).max() < 1e-9
    assert backup.context(0.05)[pair].min() > 1e-3
    both = backup.values[(1 << planted.PRIMARY) + (1 << planted.BACKUP)].mean()
    assert both > 0.01
    assert backup.shapley()[planted.PRIMARY] == pytest.approx(backup.shapley()[planted.BACKUP], rel=1e-4)


@pytest.mark.parametrize("case", ["duplicates", "cancelling pair", "dead unit", "bystander", "one-class unit"])
def test_a_wrong_claim_is_found_out(case):
    def mistaken(network, batches, asked):
        found = SCORERS("exact")(network, batches, asked)
        units = list(CASES[case]) if len(found.units) == planted.UNITS else []
        found.mean[units] += 6 * found.standard_error[units] + 0.01
        if case == "one-class unit":
            found.per_image[units] += 0.01
        return found

    assert planted_outcomes(mistaken)[case] == WRONG


def test_another_estimand_than_the_one_named_is_found_out():
    """Single effects sold as context or Shapley effects: blind to the backup."""
    for estimand, rate in (("context", 0.3), ("shapley", float("nan"))):

        def mislabelled(network, batches, asked, estimand=estimand, rate=rate):
            return replace(SCORERS("exact")(network, batches, asked), estimand=estimand, rate=rate)

        assert planted_outcomes(mislabelled)["preemption"] == WRONG


def test_an_approximation_that_is_off_is_told_from_a_broken_promise():
    """To second order, around the network as it is, a unit that has a backup looks like any other."""
    found = planted_outcomes(SCORERS("gradient"))
    assert found["dead unit"] == found["bystander"] == RIGHT
    assert found["preemption"] == OFF


def test_who_gives_no_interval_claims_nothing():
    def silent(network, batches, asked):
        found = SCORERS("exact")(network, batches, replace(asked, per_image=False))
        unknown = np.full(len(found.units), np.nan)
        return replace(found, standard_error=unknown, bounds=None, approximate=True)

    assert set(planted_outcomes(silent).values()) == {NO_CLAIM}


def test_the_backup_acts_only_when_the_first_is_gone():
    assert len(ordinary().network.units) == planted.UNITS
    assert len(planted.preemption().network.units) == 4
