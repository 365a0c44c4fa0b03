"""DoWhy on random masks is least squares; on runs as they are it is stable and wrong."""

import sys
from functools import cache

import numpy as np
import pytest

from whyprune.causal.exact import exact_effects
from whyprune.causal.fitted.designs import design
from whyprune.errors import InputError, MissingDependencyError
from whyprune.interventions.worlds import Worlds
from whyprune.scoring.contract import Question
from whyprune.scoring.registry import SCORERS
from whyprune.testing import planted
from whyprune.testing.planted import BYSTANDER, DEAD

pytest.importorskip("dowhy", reason="the extra `causal` is not installed")

from whyprune.causal.fitted.dowhy_study import WARNING, dowhy, dowhy_study


@cache
def table(regime="masks", outcome=None, rows=None):
    case = planted.case(1)
    return design(Worlds(case.network, [case.batch], outcome=outcome), Question(), regime, rows=rows, most=6)


def least_squares(x, y):
    """Coefficients and standard errors, without the intercept."""
    x = np.c_[np.ones(len(y)), x]
    found = np.linalg.lstsq(x, y, rcond=None)[0]
    spread = np.square(y - x @ found).sum() / (len(y) - x.shape[1])
    return found[1:], np.sqrt(spread * np.linalg.inv(x.T @ x).diagonal())[1:]


def test_flat_dowhy_on_masks_is_least_squares():
    case = planted.case(1)
    found = dowhy(case.network, [case.batch], Question())
    mean, error = least_squares(table().values, table().outcome)
    np.testing.assert_allclose(found.mean, mean, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.standard_error, error, rtol=0, atol=1e-6)
    assert (found.estimand, found.rate) == ("context", 0.05)


def test_blocks_and_every_choice_of_covariates_are_least_squares_too():
    groups = table("groups")
    assert len(groups.names) <= 6
    for adjust in ("none", "all", "same", "before"):
        study = dowhy_study(groups, groups.names[-1], adjust=adjust, refuters=())
        tier = groups.tier - groups.tier[-1]
        kept = {"none": tier > 9, "all": tier < 9, "same": tier == 0, "before": tier == -1}[adjust]
        kept[-1] = True
        mean, error = least_squares(groups.values[:, kept], groups.outcome)
        assert study.estimate == pytest.approx(mean[-1], abs=1e-6)
        assert study.standard_error == pytest.approx(error[-1], abs=1e-6)


def test_a_study_tells_its_four_steps_and_what_passing_does_not_mean():
    study = dowhy_study(table(), "units:8", adjust="none", refuters=("placebo", "data subset"))
    assert [s.split(":")[0] for s in study.steps] == ["Model", "Identify", "Estimate", "Refute"]
    assert all(s.endswith(".") for s in study.steps)
    assert study.interval[0] < study.estimate < study.interval[1]
    placebo, subset = study.refutations
    assert placebo.passed
    assert abs(placebo.effect) < study.estimate / 3
    assert subset.passed
    assert WARNING in str(study)
    again = dowhy_study(table(), "units:8", adjust="none", refuters=("placebo",))
    assert again.refutations[0] == placebo


def logit(logits, dense, labels):
    return logits[:, planted.SPECIAL]


def test_a_finding_a_wrong_estimate_passes_its_refuters():
    """The bystander has no effect; its summary goes with the logit all the same, surely so, and that is not refuted."""
    case = planted.case(1, 300)
    seen = design(Worlds(case.network, [case.batch], outcome=logit), Question(), "observational")
    name = case.unit(BYSTANDER)
    assert exact_effects(case.network, [case.batch], outcome=logit)[name] == pytest.approx(0, abs=1e-6)
    study = dowhy_study(seen, name, adjust="none", refuters=("placebo", "random common cause"))
    assert study.interval[1] < -0.5
    assert all(r.passed for r in study.refutations)


def test_a_constant_outcome_and_unknown_names_are_refused():
    with pytest.raises(InputError, match="same on every image"):
        table("observational")
    with pytest.raises(InputError, match="no unit or block"):
        dowhy_study(table(), "nobody")
    with pytest.raises(InputError, match="no refuter"):
        dowhy_study(table(), "units:0", refuters=("oracle",))
    with pytest.raises(InputError, match="at least 100"):
        dowhy_study(table(), "units:0", simulations=20)
    with pytest.raises(InputError, match="no adjustment"):
        dowhy_study(table(), "units:0", adjust="front-door", refuters=())
    with pytest.raises(InputError, match="no regime"):
        table("dreams")


def test_without_the_extra_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dowhy", None)
    case = planted.case(1)
    with pytest.raises(MissingDependencyError, match=r"whyprune\[causal\]"):
        SCORERS("dowhy")(case.network, [case.batch], Question())


def test_a_dead_unit_has_an_interval_around_nothing():
    study = dowhy_study(table(), f"units:{DEAD}", refuters=())
    assert study.interval[0] <= 0 <= study.interval[1]
