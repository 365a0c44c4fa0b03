"""Every estimator keeps the contract."""

import pytest

from whyprune.errors import InputError
from whyprune.scoring.contract import Question
from whyprune.scoring.registry import ESTIMATORS, estimator
from whyprune.testing import check_estimator

NEEDS = {"discovery": "causallearn", "dowhy": "dowhy", "gcm": "dowhy"}


def available(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason="the extra `causal` is not installed")
    return estimator(name)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_keep_the_contract(name):
    found = check_estimator(available(name))
    assert found.method == name


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_keep_to_their_budget(name):
    found = check_estimator(available(name), question=Question(forward_passes=300.0))
    assert found.forward_passes <= 600


def test_a_contract_that_is_broken_is_told():
    def restless(network, batches, question):
        found = estimator("exact")(network, batches, question)
        found.mean[:] += restless.calls
        restless.calls += 1
        return found

    restless.calls = 0
    with pytest.raises(AssertionError, match="same seed"):
        check_estimator(restless)


def test_an_unknown_estimator_is_refused():
    with pytest.raises(InputError, match="no estimator named 'oracle'"):
        estimator("oracle")
